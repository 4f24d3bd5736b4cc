"""Files that are doors to processes, devices and the operating system itself. No WASI program is given them.

Owns where they are. A module that could write ``/proc/self/mem`` would be out of the engine at once.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDERS = ("/proc", "/sys", "/dev")
_MEMORY = "/dev/shm"  # noqa: S108 - files there are files
_TABLE = "/proc/self/mountinfo"
_TYPES = frozenset(
    b"proc sysfs devtmpfs devpts cgroup cgroup2 debugfs tracefs securityfs bpf binfmt_misc mqueue pstore efivarfs "
    b"configfs fusectl selinuxfs".split()
)


def why_closed(folder: str) -> str:
    """Say why a folder, by its real path, is opened to no module; empty if it may be. It reads the table of mounts."""
    for place in (*_FOLDERS, *_mounted()):
        if _is_within(folder, place) and not (place == "/dev" and _is_within(folder, _MEMORY)):
            return f"it lies in {place}, and a WASI program is given nothing of the host's processes and devices"
        if _is_within(place, folder):
            return f"{place} lies in it, and a WASI program is given nothing of the host's processes and devices"
    return ""


def _mounted() -> Iterator[str]:
    """Yield where else such files are, on Linux: in the root of a container, for example."""
    with contextlib.suppress(OSError), Path(_TABLE).open("rb") as file:
        for line in file:
            words = line.split()
            if words[words.index(b"-") + 1] in _TYPES:
                place = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), words[4])
                yield place.decode(errors="surrogateescape")


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")
