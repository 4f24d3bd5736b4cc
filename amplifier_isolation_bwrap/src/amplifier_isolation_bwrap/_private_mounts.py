"""A mount namespace that follows no other: what the host mounts later stays outside of the sandbox.

Owns the words before bwrap for this, and tells when they are needed. bwrap makes each mount a slave of the host's: what
is mounted there later, below a folder that the module sees, would appear inside, and as writable as it is outside. So
``unshare`` makes all mounts private before bwrap does. That needs a capability, and so a user namespace.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_PATH = "/usr/bin:/bin"
_OPTIONS = ("--user", "--map-root-user", "--mount", "--propagation", "private", "--")
_FOLLOWS = re.compile(r" (?:shared|master):\d")  # in the optional fields of a mount; a space in a path is written \040


def find_private_prefix() -> tuple[str, ...]:
    """Return the words before bwrap that make its mounts private; none if the program for it is not installed."""
    unshare = shutil.which("unshare", path=_PATH)
    return (unshare, *_OPTIONS) if unshare else ()


def follow_others(mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Tell whether a mount of this process shows what is mounted elsewhere: on most hosts all do, in containers none.

    Where none does, a start need not pay for a namespace more.
    """
    return _FOLLOWS.search(mountinfo.read_text("utf-8", "surrogateescape")) is not None
