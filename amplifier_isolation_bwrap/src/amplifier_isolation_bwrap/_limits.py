"""The limits that this distribution sets: of each process what ``setrlimit`` knows, and the number of processes.

Owns the choice of how each is set on this host. Memory and CPU time of all processes together are the kernel's part.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

from ._cgroup import Cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._options import Options

_PATH = "/usr/bin:/bin"  # of the system, so every module sees it
_NO_CORE = 1  # byte: 0 does not stop a dump to a program, but Linux starts none for this value
_PENDING_SIGNALS = 1024  # timers count too; the user's other programs share what is left
_LOCKED_BYTES = 8 * 1024 * 1024  # Linux's own default since 5.16
_COUNTS_PER_NAMESPACE = (5, 14)  # since this Linux; before, the user's processes outside of the sandbox count too


@attrs.frozen
class Limits:
    """How the limits are set. ``processes`` says for people how processes are limited."""

    rlimits: Mapping[int, int]
    """Set from outside, for each process: a program that sets them inside would cost most of a millisecond."""
    command_prefix: tuple[str, ...]
    """The words before the module's command."""
    processes: str
    cgroups: Cgroups | None = None

    def bwrap_prefix(self) -> tuple[str, ...]:
        """Return the words before bwrap itself. Raises ``Unreachable``."""
        return self.cgroups.join_prefix() if self.cgroups else ()


def find_limits(options: Options) -> Limits:
    """Find out how limits can be set here. Raises ``Unreachable`` if ``prlimit`` or the cgroup cannot be used."""
    rlimits = _rlimits(options)
    if options.cgroup is not None:
        processes = f"at most {options.processes}: a cgroup"
        return Limits(rlimits, (), processes, _cgroups(Path(options.cgroup), options.processes))
    if reason := why_not_counted(platform.release(), os.getuid()):
        return Limits(rlimits, (), f"not limited: {reason}, and no cgroup is given")
    return Limits(rlimits, nproc_prefix(options.processes), f"at most {options.processes}: RLIMIT_NPROC")


def _rlimits(options: Options) -> dict[int, int]:
    """Return the limits of each process. A limit that this process has itself cannot be raised."""
    resource = importlib.import_module("resource")  # Windows has none; the trial ends before this
    wanted = {
        resource.RLIMIT_CORE: _NO_CORE,
        resource.RLIMIT_NOFILE: options.open_files,
        resource.RLIMIT_FSIZE: options.file_bytes,
        resource.RLIMIT_MEMLOCK: _LOCKED_BYTES,
        resource.RLIMIT_SIGPENDING: _PENDING_SIGNALS,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    own = {number: resource.getrlimit(number)[1] for number in wanted}
    return {number: value if own[number] == -1 else min(value, own[number]) for number, value in wanted.items()}


def nproc_prefix(processes: int) -> tuple[str, ...]:
    """Return the words before a command that limit its processes. Set outside, the limit counts the user's others."""
    setter = shutil.which("prlimit", path=_PATH)
    if setter is None:
        raise Unreachable("prlimit is not installed; try: apt install util-linux")
    return (setter, f"--nproc={processes}", "--")


def _cgroups(parent: Path, processes: int) -> Cgroups:
    try:
        return Cgroups(parent, processes)
    except OSError as error:
        raise Unreachable(f"isolation bwrap: cgroup: {parent}: {error.strerror}") from error


def why_not_counted(release: str, uid: int) -> str:
    """Say why RLIMIT_NPROC does not limit a module, on this release of Linux and for this user; empty if it does."""
    if uid == 0:
        return "RLIMIT_NPROC does not bind uid 0"
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    counted = version >= _COUNTS_PER_NAMESPACE
    return "" if counted else "before Linux 5.14, RLIMIT_NPROC counts the user's other processes too"
