"""The isolation: it makes one launch into another that runs in a sandbox, and says what it enforces.

Owns which capability gives access to what. How paths are found, mounts ordered and limits set is not here.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import Forbidden, KernelError, Unreachable
from amplifier_core.hookspecs import AREAS, Confinement, Isolation, Launch

from ._bwrap import Bwrap, find_bwrap
from ._by_module import check_granted, refuse_path
from ._file_descriptors import FileDescriptors
from ._hosts import find_hosts, is_single, why_not_a_host
from ._limits import Limits, find_limits
from ._mounts import LostPathError, MountTable, find_mount_points, why_forbidden
from ._networks import Networks
from ._paths import SCRATCH, SHARED_MEMORY, is_system
from ._plan import Planner
from ._private_mounts import find_private_prefix, follow_others, scratch_files, scratch_folder, scratch_prefix
from ._root_filesystem import USER, RootFilesystem
from ._seccomp import build_filter, is_supported
from ._trial import PROBE, PROBE_OF_HOSTS, PROBE_OF_PRIVATE_MOUNTS, TRIED_HOSTS, run_trial, run_trial_of_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amplifier_core import ModuleDescriptor

    from ._options import Options
    from ._plan import Plan

_TMP = "$tmp"  # the scratch folder, in a capability
_WORD = b"--unshare-uts\0"  # without it bwrap refuses --hostname and ends, before it makes a process
_GENERATIONS = 2  # bwrap waits outside, and its pid 1 inside, which starts the program
_HOST = "net:connect:HOST:PORT"
_SCRATCH_FILES = "not limited: unshare of util-linux cannot mount here"
_LATER_MOUNTS = "appear inside, if the host shares its mounts: unshare of util-linux cannot make them private here"


@attrs.frozen
class BwrapConfinement(Confinement):
    """The sandboxes of one module."""

    _isolation: BwrapIsolation
    _plan: Plan
    shown: Mapping[str, Any]

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Put one process into a sandbox of its own. Raises ``Unreachable`` or ``Forbidden``."""
        return self._isolation.confine(self._plan, launch, granted)


class BwrapIsolation(Isolation):
    """Modules in bubblewrap. Each kernel has one; it remembers what it found out about this host."""

    name = "bwrap"
    confines: tuple[str, ...] = AREAS

    def __init__(self, options: Options) -> None:
        self._options = options
        self._root_filesystem = RootFilesystem()
        self._planner = Planner()
        self._networks = Networks(options)

    def trial(self) -> str:
        """Start a probe in the same way as a module; only the first call does so."""
        return self._failure

    def describe(self) -> Mapping[str, Any]:
        """Say what it enforces on this host, and what not."""
        if self.trial():
            return {"unusable": self._failure}
        why = self._failure_of_hosts
        mounts = "by descriptor" if self._by_descriptor else "by path: it follows a path that is replaced meanwhile"
        return {
            "program": self._bwrap.path,
            "version": self._bwrap.version,
            "enforces": ["fs:read", "fs:write", "env", "net:connect:*", "net:listen:*", *([] if why else [_HOST])],
            "refuses": [f"{_HOST}: {why}"] if why else [],
            "processes": self._limits.processes,
            "open_files": self._options.open_files,
            "file_bytes": self._options.file_bytes,
            "scratch_bytes": self._options.scratch_bytes,
            "scratch_files": scratch_files(self._options.scratch_bytes) if self._private_prefix else _SCRATCH_FILES,
            "mounts": mounts,
            "later_mounts": "stay outside" if self._private_prefix else _LATER_MOUNTS,
        }

    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List the capabilities for single hosts, if this host cannot tell them apart, and for paths of the system.

        If there are hosts, it has the relay started, so that no start of a module has to wait for that.
        """
        mount_points = find_mount_points() if capabilities else {}
        left = tuple(word for word in capabilities if self._why_unenforced(word, mount_points))
        if any(is_single(word) and word not in left for word in capabilities):
            with contextlib.suppress(Unreachable):  # the start of the module says so
                self._networks.start()
        return left

    def why_unenforced(self, capability: str) -> str:
        """Say why a single host cannot be told apart, or a path not be seen."""
        return self._why_unenforced(capability, find_mount_points())

    def _why_unenforced(self, word: str, mount_points: Mapping[str, str]) -> str:
        if is_single(word):
            return why_not_a_host(word) or self._failure_of_hosts
        path = word.partition(":")[2].partition(":")[2]
        return why_forbidden(path, mount_points) if word.startswith("fs:") and path.startswith("/") else ""

    def plan(self, launch: Launch, descriptor: ModuleDescriptor) -> BwrapConfinement:
        """Find what the command needs to start. Raises ``Unreachable`` or ``Forbidden``."""
        plan = self._planner.plan(launch, descriptor)
        if plan.caller is not None:  # what it was granted is not known yet, and nothing else may be opened
            return BwrapConfinement(self, plan, {})
        with FileDescriptors() as fds:
            mounts = self._mounts(plan, descriptor.capabilities, fds)
            for _ in mounts.options():  # opens each path, as a start will do
                pass
            return BwrapConfinement(self, plan, self._describe_access(mounts, descriptor.capabilities))

    def confine(self, plan: Plan, launch: Launch, granted: Sequence[str]) -> Launch:
        """Put the launch into a sandbox of its own. Raises ``Unreachable`` or ``Forbidden``."""
        self._planner.granted(granted)
        try:
            return self._confine(plan, launch, granted, self._mount_prefix(granted))
        except LostPathError as error:
            if plan.caller is None:
                raise
            raise refuse_path(error.path, plan.caller) from None

    def close(self) -> None:
        """End the relay, if there is one."""
        self._networks.close()

    @functools.cached_property
    def _bwrap(self) -> Bwrap:
        return find_bwrap(self._options.program)

    @functools.cached_property
    def _limits(self) -> Limits:
        return find_limits(self._options)

    @property
    def _by_descriptor(self) -> bool:
        return "--bind-fd" in self._bwrap.options

    @functools.cached_property
    def _failure(self) -> str:
        if platform.system() != "Linux":
            return f"bubblewrap is a program for Linux, and this is {platform.system()}"
        if not is_supported(platform.machine()):
            return f"there is no system call filter for {platform.machine()}"
        try:
            return "" if self._private_prefix else self._try(PROBE, ())
        except KernelError as error:
            return error.message

    @functools.cached_property
    def _failure_of_hosts(self) -> str:
        """Why single hosts cannot be told apart here; empty if they can."""
        probe = Launch(command=PROBE_OF_HOSTS, cwd="/", env={})
        networks = self._networks.another()  # whose end no module has to fear
        try:
            plan = self._planner.search(probe, None)
            return run_trial_of_hosts(self._confine(plan, probe, TRIED_HOSTS, self._private_prefix, networks))
        except KernelError as error:
            return error.message
        finally:
            networks.close()

    @functools.cached_property
    def _private_prefix(self) -> tuple[str, ...]:
        """The words before bwrap that make its mounts private; none where a trial of them fails."""
        prefix = find_private_prefix()
        words = (*prefix, *scratch_prefix(1, self._options.scratch_bytes))
        return prefix if prefix and not self._try(PROBE_OF_PRIVATE_MOUNTS, words) else ()

    def _mount_prefix(self, granted: Sequence[str]) -> tuple[str, ...]:
        """Return the words before bwrap that make the mounts which it cannot make."""
        scratch = len(_scratch_folders(granted))
        if self._private_prefix and scratch:
            return (*self._private_prefix, *scratch_prefix(scratch, self._options.scratch_bytes))
        return self._private_prefix if follow_others() else ()

    def _try(self, command: Sequence[str], private: Sequence[str]) -> str:
        probe = Launch(command=tuple(command), cwd="/", env={})
        return run_trial(self._confine(self._planner.search(probe, None), probe, (), private))

    def _mounts(self, plan: Plan, granted: Sequence[str], fds: FileDescriptors) -> MountTable:
        """Give the mounts beyond the system's own. Raises ``Forbidden``."""
        if plan.caller is not None:
            check_granted(plan.command[0], granted, plan.caller)
        mounts = MountTable(fds.keep, self._by_descriptor)
        for path in plan.paths:
            mounts.bind(path)
        self._add_granted(mounts, granted)
        return mounts

    def _confine(
        self,
        plan: Plan,
        launch: Launch,
        granted: Sequence[str],
        private: Sequence[str],
        networks: Networks | None = None,
    ) -> Launch:
        hosts = find_hosts(granted)
        network = (networks or self._networks).open(hosts) if hosts else None
        prefix = (*self._limits.bwrap_prefix(), *(network.prefix if network else ()), *private)
        with FileDescriptors() as fds:
            if network is not None:
                fds.keep(network.sync)
            mounts = self._mounts(plan, granted, fds)
            shown = self._describe_access(mounts, granted)
            options = self._arguments(plan, launch.env, mounts, fds, granted)
            sync = () if network is None else ("--sync-fd", str(network.sync))
            arguments = fds.memory_file("\0".join((*sync, *options)))
            inner, gate = fds.gate()  # bwrap reads it to its end, and makes no process before
            inherited = (*launch.fds, *fds.release())
        bwrap = (self._bwrap.path, "--args", str(arguments), "--args", str(inner), "--")
        command = (*prefix, *bwrap, *self._limits.command_prefix, *plan.command)
        return Launch(
            command=command,
            cwd="/",
            env={},
            fds=inherited,
            limits=self._limits.rlimits,
            gate=gate,
            word=_WORD,
            generations=_GENERATIONS,
            shown=shown,
            end=network.end if network else None,
        )

    def _arguments(
        self, plan: Plan, own: Mapping[str, str], mounts: MountTable, fds: FileDescriptors, granted: Sequence[str]
    ) -> list[str]:
        """Return bwrap's options. It reads them from a file descriptor, as every user can read a command line."""
        network, hosts = _needs_network(granted), find_hosts(granted)
        env = {**({"TMPDIR": SCRATCH} if f"fs:write:{_TMP}" in granted else {}), **own}
        self._root_filesystem.add_to(mounts, fds.memory_file, network=network, hosts=hosts)
        mounts.add_default(plan.real_cwd, "--dir")
        arguments = [
            *self._process_options(own_network=not network),
            *("--seccomp", str(fds.memory_file(build_filter(platform.machine(), network=network)))),
            *(word for name, value in env.items() for word in ("--setenv", name, value)),
            *mounts.options(),
            *("--remount-ro", "/dev", "--remount-ro", "/proc"),  # whose files would let a module of root write
            *("--chdir", plan.cwd),
        ]
        if any("\0" in word for word in arguments):
            raise Forbidden("a NUL in the environment or the folder of a launch would split an option of bwrap")
        return arguments

    def _process_options(self, *, own_network: bool) -> Iterator[str]:
        """Yield the options that are not about files."""
        yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try")
        if own_network:
            yield "--unshare-net"
        if "--disable-userns" in self._bwrap.options:
            yield "--disable-userns"
        yield from ("--uid", str(USER), "--gid", str(USER), "--hostname", "module", "--cap-drop", "ALL")
        yield from ("--die-with-parent", "--new-session", "--clearenv")

    def _add_granted(self, mounts: MountTable, granted: Sequence[str]) -> None:
        """Add the paths that were granted. Raises ``Forbidden`` for those that no isolated module may see."""
        files = [word.split(":", 2) for word in granted if word.startswith("fs:")]
        mount_points = find_mount_points() if files else {}
        for _, action, path in files:
            if path.split("/")[0] != _TMP:
                mounts.grant(path, mount_points, writable=action == "write")
        self._add_scratch(mounts, _scratch_folders(granted))

    def _add_scratch(self, mounts: MountTable, folders: Sequence[str]) -> None:
        """Add memory to write to. Shared memory is the first of the folders: one more would cost 2 ms a start."""
        for number, path in enumerate([*folders, SHARED_MEMORY] if folders else ()):
            if self._private_prefix:
                mounts.mount(path, "--bind", scratch_folder(number % len(folders), len(folders)))
            else:
                mounts.mount_tmpfs(path, self._options.scratch_bytes)

    def _describe_access(self, mounts: MountTable, granted: Sequence[str]) -> dict[str, Any]:
        """Say for people what the module can access beyond the system's own folders."""
        paths = sorted(path for path in mounts.separate_binds() if not is_system(path))
        return {
            "isolation": self.name,
            "read": [path for path in paths if not mounts.binds[path]],
            "write": [path for path in paths if mounts.binds[path]],
            "network": _describe_network(granted),
            "tmp": self._options.scratch_bytes if _scratch_folders(granted) else 0,
        }


def _scratch_folders(granted: Sequence[str]) -> list[str]:
    """Return the folders of a sandbox that are memory to write to."""
    paths = [capability.removeprefix("fs:write:") for capability in granted if capability.startswith("fs:write:")]
    return list(dict.fromkeys(SCRATCH + path.removeprefix(_TMP) for path in paths if path.split("/")[0] == _TMP))


def _describe_network(granted: Sequence[str]) -> str | list[str]:
    if hosts := find_hosts(granted):
        return hosts.shown()
    return "host" if _needs_network(granted) else "none"


def _needs_network(granted: Sequence[str]) -> bool:
    return any(capability.startswith("net:") for capability in granted)
