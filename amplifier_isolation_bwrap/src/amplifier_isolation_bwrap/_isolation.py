"""The isolation itself: one launch made into another one, and what can be said about it.

Owns which capability opens what. Finding, arranging and limiting are its neighbours'.
"""

from __future__ import annotations

import functools
import platform
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError
from amplifier_core.hookspecs import Launch

from ._bwrap import Bwrap, find_bwrap
from ._code import find_code
from ._dependencies import find_dependencies, is_system
from ._file_descriptors import FileDescriptors
from ._limits import Limits, find_limits
from ._mounts import SCRATCH, MountTable, closed
from ._paths import SharedFolders, is_within, resolve
from ._root_filesystem import USER, RootFilesystem
from ._seccomp import build_filter, is_supported
from ._trial import COMMAND, run_trial

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
            "program": self._bwrap.path,
            "version": self._bwrap.version,
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
        own = find_code(launch, descriptor, self._shared_folders)
        if descriptor.caller is not None:
            self._check_needs(launch, descriptor.caller, granted)
        return self._confined(launch, own, granted)

    def _check_needs(self, launch: Launch, caller: str, granted: Sequence[str]) -> None:
        """Refuse what another module would have opened by naming a program, such as one that it wrote itself."""
        needs = find_dependencies(launch.command, launch.cwd, launch.env, self._shared_folders)
        folders = [word.split(":", 2)[2] for word in granted if word.startswith("fs:")]
        for path in needs.paths:
            real = resolve(path).real
            if not is_system(real) and not any(is_within(real, folder) for folder in folders):
                raise Forbidden(
                    f"{launch.command[0]}: it needs {real}, which {caller} can have opened for it by fs:read: alone",
                    details={"capabilities": [f"fs:read:{real}"]},
                )

    @functools.cached_property
    def _bwrap(self) -> Bwrap:
        return find_bwrap(self._options.program)

    @functools.cached_property
    def _limits(self) -> Limits:
        return find_limits(self._options)

    @functools.cached_property
    def _root_filesystem(self) -> RootFilesystem:
        return RootFilesystem()

    @functools.cached_property
    def _shared_folders(self) -> SharedFolders:
        return SharedFolders()

    @property
    def _by_descriptor(self) -> bool:
        return "--bind-fd" in self._bwrap.offers

    def _try(self) -> str:
        if platform.system() != "Linux":
            return f"bubblewrap is a program for Linux, and this is {platform.system()}"
        if not is_supported(platform.machine()):
            return f"there is no system call filter for {platform.machine()}"
        try:
            return run_trial(self._confined(Launch(command=COMMAND, cwd="/", env={}), (), ()))
        except KernelError as error:
            return error.message

    def _confined(self, launch: Launch, own: Sequence[str], granted: Sequence[str]) -> Launch:
        needs = find_dependencies(launch.command, launch.cwd, launch.env, self._shared_folders)
        around = self._limits.around()
        with FileDescriptors() as fds:
            view = MountTable(fds.keep, self._by_descriptor)
            for path in (*own, *needs.paths):
                view.show(path)
            self._open(view, granted)
            shown = self._shown(view, granted)
            arguments = fds.memory_file("\0".join(self._options_for(launch, view, fds, granted)))
            waiting, gate = fds.pipe()  # bwrap reads until its end, before it makes any process
            inherited = (*launch.fds, *fds.release())
        bwrap = (self._bwrap.path, "--args", str(arguments), "--args", str(waiting), "--")
        command = (*around, *bwrap, *self._limits.inside, needs.program, *launch.command[1:])
        return Launch(command=command, cwd="/", env={}, fds=inherited, limits=self._limits.each, gate=gate, shown=shown)

    def _options_for(self, launch: Launch, view: MountTable, fds: FileDescriptors, granted: Sequence[str]) -> list[str]:
        """Give bwrap's options; they are read from a descriptor, since everybody can read a command line."""
        network = _wants_network(granted)
        env = {**({"TMPDIR": SCRATCH} if f"fs:write:{_PLACE}" in granted else {}), **launch.env}
        self._root_filesystem.add_to(view, fds.memory_file, network=network)
        view.put(resolve(launch.cwd).real, "--dir")
        options = [
            *self._around(network=network),
            *("--seccomp", str(fds.memory_file(build_filter(platform.machine(), network=network)))),
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
        if "--disable-userns" in self._bwrap.offers:
            yield "--disable-userns"
        yield from ("--uid", str(USER), "--gid", str(USER), "--hostname", "module", "--cap-drop", "ALL")
        yield from ("--die-with-parent", "--new-session", "--clearenv")

    def _open(self, view: MountTable, granted: Sequence[str]) -> None:
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

    def _shown(self, view: MountTable, granted: Sequence[str]) -> dict[str, Any]:
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
