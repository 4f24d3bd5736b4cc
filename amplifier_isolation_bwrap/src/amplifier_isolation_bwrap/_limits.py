"""The limits inside: what each process may have open and write, and how many processes a module may have.

Owns which of them holds here. Memory and CPU of the whole tree are the core's, by looking.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

from ._cgroup import Cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._options import Options

_FOLDERS = "/usr/bin:/bin"  # the system's own, which every module sees
_COUNTS_PER_NAMESPACE = (5, 14)  # since this Linux: before, the user's processes outside count too


@attrs.frozen
class Limits:
    """``each`` is set from outside, for each process: a program that does it inside costs most of a millisecond.

    ``inside`` comes before the module's command; ``processes`` says for people what counts them.
    """

    each: Mapping[int, int]
    inside: tuple[str, ...]
    processes: str
    cgroups: Cgroups | None = None

    def around(self) -> tuple[str, ...]:
        """Give what comes before bwrap itself. Raises ``Unreachable``."""
        return self.cgroups.join_prefix() if self.cgroups else ()


def find_limits(options: Options) -> Limits:
    """Find out what can be kept here. Raises ``Unreachable`` without the program that sets the one set inside."""
    each = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: options.open_files,
        resource.RLIMIT_FSIZE: options.file_bytes,
    }
    if options.cgroup is not None:
        said = f"at most {options.processes}: a cgroup"
        return Limits(each, (), said, _cgroups(Path(options.cgroup), options.processes))
    if why_not := why_not_counted(platform.release(), os.getuid()):
        return Limits(each, (), f"not limited: {why_not}, and no cgroup is given")
    return Limits(each, nproc_prefix(options.processes), f"at most {options.processes}: RLIMIT_NPROC")


def nproc_prefix(processes: int) -> tuple[str, ...]:
    """Give what comes before a command to limit its processes: set outside, the limit would count the user's others."""
    setter = shutil.which("prlimit", path=_FOLDERS)
    if setter is None:
        raise Unreachable("prlimit is not installed; try: apt install util-linux")
    return (setter, f"--nproc={processes}", "--")


def _cgroups(parent: Path, processes: int) -> Cgroups:
    try:
        return Cgroups(parent, processes)
    except OSError as error:
        raise Unreachable(f"isolation bwrap: cgroup: {parent}: {error.strerror}") from error


def why_not_counted(release: str, uid: int) -> str:
    """Say why RLIMIT_NPROC does not hold on this version of Linux, for this user; empty if it does."""
    if uid == 0:
        return "RLIMIT_NPROC does not bind uid 0"
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < _COUNTS_PER_NAMESPACE:
        return "before Linux 5.14, RLIMIT_NPROC counts the user's other processes too"
    return ""
