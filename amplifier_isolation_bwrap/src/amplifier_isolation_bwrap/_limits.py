"""The limits inside: what each process may have open and write, and how many processes a module may have.

Owns which of them holds here. Memory and CPU of the whole tree are the core's, by looking.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from ._options import Options

_FOLDERS = "/usr/bin:/bin"  # the system's own, which every module sees
_COUNTS_PER_NAMESPACE = (5, 14)  # since this Linux: before, the user's processes outside count too


@attrs.frozen
class Limits:
    """``command`` comes before the module's; ``processes`` says what counts them, for people."""

    command: tuple[str, ...]
    processes: str


def find_limits(options: Options, release: str | None = None, uid: int | None = None) -> Limits:
    """Find out what can be kept here. Raises ``Unreachable`` without the program that sets limits."""
    setter = shutil.which("prlimit", path=_FOLDERS)
    if setter is None:
        raise Unreachable("prlimit is not installed; try: apt install util-linux")
    words = [setter, "--core=0", f"--nofile={options.open_files}", f"--fsize={options.file_bytes}"]
    counted = _counted(release or platform.release(), os.getuid() if uid is None else uid)
    if counted:
        return Limits((*words, "--"), counted)
    return Limits((*words, f"--nproc={options.processes}", "--"), f"at most {options.processes}: RLIMIT_NPROC")


def _counted(release: str, uid: int) -> str:
    """Say why RLIMIT_NPROC would not do; empty if it does."""
    if uid == 0:
        return "not limited: RLIMIT_NPROC does not bind uid 0, and there is no cgroup"
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < _COUNTS_PER_NAMESPACE:
        return "not limited: before Linux 5.14, RLIMIT_NPROC counts the user's other processes too"
    return ""
