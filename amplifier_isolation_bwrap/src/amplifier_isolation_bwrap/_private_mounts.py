"""The mounts that are made before bwrap: private ones, which follow no other's, and the module's scratch space.

Owns the words before bwrap for this, and tells when they are needed. bwrap makes each mount a slave of the host's:
what is mounted there later, below a folder that the module sees, would appear inside, and as writable as it is
outside. And it cannot limit the number of files in memory. So ``unshare`` and ``mount`` do both before. That needs a
capability, and so a user namespace.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_PATH = "/usr/bin:/bin"
_OPTIONS = ("--user", "--map-root-user", "--mount", "--propagation", "private", "--")
_PLACE = "/dev/shm"  # noqa: S108 - of the namespace; it covers a folder of the host that no module sees
_MOUNT = 'mount -n -i -t tmpfs -o "$1" amplifier "$0" && shift && {}exec "$@"'
_LEAST_FILES = 64
_PAGE = 4096  # bytes; as many files as pages, so that each file can have a content
_FOLLOWS = re.compile(r" (?:shared|master):\d")  # in the optional fields of a mount; a space in a path is written \040


def find_private_prefix() -> tuple[str, ...]:
    """Return the words before bwrap that make its mounts private; none if the program for it is not installed."""
    unshare = shutil.which("unshare", path=_PATH)
    return (unshare, *_OPTIONS) if unshare else ()


def scratch_prefix(folders: int, size: int) -> tuple[str, ...]:
    """Return the words after the private prefix that mount memory of ``size`` bytes, with so many folders in it."""
    made = [scratch_folder(number, folders) for number in range(folders)]
    script = f"PATH={_PATH}; " + _MOUNT.format(f"mkdir {' '.join(made)} && " if folders > 1 else "")
    return ("/bin/sh", "-c", script, _PLACE, f"size={size},nr_inodes={scratch_files(size)},mode=0755")


def scratch_folder(number: int, folders: int) -> str:
    """Return the path of one of so many folders that ``scratch_prefix`` makes. A single one is the whole memory."""
    return f"{_PLACE}/{number}" if folders > 1 else _PLACE


def scratch_files(size: int) -> int:
    """Return how many files and folders are in memory of ``size`` bytes at most."""
    return max(size // _PAGE, _LEAST_FILES)


def follow_others(mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Tell whether a mount of this process shows what is mounted elsewhere: on most hosts all do, in containers none.

    Where none does, a start need not pay for a namespace more.
    """
    return _FOLLOWS.search(mountinfo.read_text("utf-8", "surrogateescape")) is not None
