"""The isolation itself: one launch made into another one, and what can be said about it.

Owns which capability opens what. Finding, arranging and limiting are its neighbours'.
"""

from __future__ import annotations

import functools
import platform
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError
from amplifier_core.hookspecs import Launch

from ._code import files_of
from ._command import find_needs, is_system
from ._descriptors import Descriptors
from ._house import USER, House
from ._limits import Limits, find_limits
from ._paths import Crowd, below, follow
from ._program import Program, find_program
from ._seccomp import program, supported
from ._trial import COMMAND, try_here
from ._view import SCRATCH, View, closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amplifier_core import ModuleDescriptor

    from ._options import Options

_PLACE = "$tmp"  # how a capability names it
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the module's own


class BwrapIsolation:
    """Modules in bubblewrap. Made for one kernel; it remembers what it found out about this host."""

    name = "bwrap"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._failure: str | None = None

    def trial(self) -> str:
        """Start a probe with all that a module is started with, once."""
        if self._failure is None:
            self._failure = self._try()
        return self._failure

    def describe(self) -> Mapping[str, Any]:
        """Say what it enforces here, and what not."""
        if self.trial():
            return {"unusable": self._failure}
        return {
            "program": self._program.path,
            "version": self._program.version,
            "enforces": ["fs:read", "fs:write", "env", "net:connect:*", "net:listen:*"],
            "refuses": ["net:connect:HOST:PORT"],
            "processes": self._limits.processes,
            "open_files": self._options.open_files,
            "file_bytes": self._options.file_bytes,
            "scratch_bytes": self._options.scratch_bytes,
            "mounts": "by descriptor" if self._by_descriptor else "by path: what is renamed meanwhile is followed",
        }

    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List single hosts, which nothing here tells apart, paths that no module may see, and ``x-`` words."""
        return tuple(word for word in capabilities if _is_out_of_reach(word))

    def confine(self, launch: Launch, descriptor: ModuleDescriptor, granted: Sequence[str]) -> Launch:
        """Put the launch into a sandbox of its own. Raises ``Unreachable`` or ``Forbidden``."""
        own = files_of(launch, descriptor, self._crowd)
        if descriptor.caller is not None:
            self._check_needs(launch, descriptor.caller, granted)
        return self._confined(launch, own, granted)

    def _check_needs(self, launch: Launch, caller: str, granted: Sequence[str]) -> None:
        """Refuse what another module would have opened by naming a program, such as one that it wrote itself."""
        needs = find_needs(launch.command, launch.cwd, launch.env, self._crowd)
        folders = [word.split(":", 2)[2] for word in granted if word.startswith("fs:")]
        for path in needs.paths:
            real = follow(path).real
            if not is_system(real) and not any(below(real, folder) for folder in folders):
                raise Forbidden(
                    f"{launch.command[0]}: it needs {real}, which {caller} can have opened for it by fs:read: alone",
                    details={"capabilities": [f"fs:read:{real}"]},
                )

    @functools.cached_property
    def _program(self) -> Program:
        return find_program(self._options.program)

    @functools.cached_property
    def _limits(self) -> Limits:
        return find_limits(self._options)

    @functools.cached_property
    def _house(self) -> House:
        return House()

    @functools.cached_property
    def _crowd(self) -> Crowd:
        return Crowd()

    @property
    def _by_descriptor(self) -> bool:
        return "--bind-fd" in self._program.offers

    def _try(self) -> str:
        if platform.system() != "Linux":
            return f"bubblewrap is a program for Linux, and this is {platform.system()}"
        if not supported(platform.machine()):
            return f"there is no system call filter for {platform.machine()}"
        try:
            return try_here(self._confined(Launch(command=COMMAND, cwd="/", env={}), (), ()))
        except KernelError as error:
            return error.message

    def _confined(self, launch: Launch, own: Sequence[str], granted: Sequence[str]) -> Launch:
        needs = find_needs(launch.command, launch.cwd, launch.env, self._crowd)
        around = self._limits.around()
        with Descriptors() as fds:
            view = View(fds.keep, self._by_descriptor)
            for path in (*own, *needs.paths):
                view.show(path)
            self._open(view, granted)
            shown = self._shown(view, granted)
            arguments = fds.hold("\0".join(self._options_for(launch, view, fds, granted)))
            waiting, gate = fds.pipe()  # bwrap reads until its end, before it makes any process
            inherited = (*launch.fds, *fds.release())
        bwrap = (self._program.path, "--args", str(arguments), "--args", str(waiting), "--")
        command = (*around, *bwrap, *self._limits.inside, needs.program, *launch.command[1:])
        return Launch(command=command, cwd="/", env={}, fds=inherited, limits=self._limits.each, gate=gate, shown=shown)

    def _options_for(self, launch: Launch, view: View, fds: Descriptors, granted: Sequence[str]) -> list[str]:
        """Give bwrap's options; they are read from a descriptor, since everybody can read a command line."""
        network = _wants_network(granted)
        env = {**({"TMPDIR": SCRATCH} if f"fs:write:{_PLACE}" in granted else {}), **launch.env}
        self._house.furnish(view, fds.hold, network=network)
        view.put(follow(launch.cwd).real, "--dir")
        options = [
            *self._around(network=network),
            *("--seccomp", str(fds.hold(program(platform.machine(), network=network)))),
            *(word for name, value in env.items() for word in ("--setenv", name, value)),
            *view.options(),
            *("--remount-ro", "/dev", "--remount-ro", "/proc"),  # to the files of /proc, root's module is root
            *("--chdir", launch.cwd),
        ]
        if any("\0" in word for word in options):
            raise Forbidden("a NUL in the environment or the folder of a launch would end one option and begin another")
        return options

    def _around(self, *, network: bool) -> Iterator[str]:
        """Give the options that have nothing to do with files."""
        yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
        if not network:
            yield "--unshare-net"
        if "--disable-userns" in self._program.offers:
            yield "--disable-userns"
        yield from ("--uid", str(USER), "--gid", str(USER), "--hostname", "module", "--cap-drop", "ALL")
        yield from ("--die-with-parent", "--new-session", "--clearenv")

    def _open(self, view: View, granted: Sequence[str]) -> None:
        """Open the paths that were granted. Raises ``Forbidden`` for those that no isolated module may see."""
        for word in granted:
            namespace, _, rest = word.partition(":")
            action, _, path = rest.partition(":")
            if namespace != "fs":
                continue
            if path.split("/")[0] != _PLACE:
                view.grant(path, writable=action == "write")
            elif action == "write":
                view.scratch(SCRATCH + path.removeprefix(_PLACE), self._options.scratch_bytes)
                view.scratch(_SHARED_MEMORY, self._options.scratch_bytes)

    def _shown(self, view: View, granted: Sequence[str]) -> dict[str, Any]:
        """Say for people what is open beyond the system's own folders."""
        paths = sorted(path for path in view.opened() if not is_system(path))
        scratch = any(word.startswith(f"fs:write:{_PLACE}") for word in granted)
        return {
            "isolation": self.name,
            "read": [path for path in paths if not view.shown[path]],
            "write": [path for path in paths if view.shown[path]],
            "network": "host" if _wants_network(granted) else "none",
            "tmp": self._options.scratch_bytes if scratch else 0,
        }


def _is_out_of_reach(word: str) -> bool:
    if word.startswith("net:connect:"):
        return word != "net:connect:*"
    if word.startswith("x-"):
        return True
    path = word.partition(":")[2].partition(":")[2]
    return word.startswith("fs:") and path.startswith("/") and bool(closed(path))


def _wants_network(granted: Sequence[str]) -> bool:
    return any(word.startswith("net:") for word in granted)
