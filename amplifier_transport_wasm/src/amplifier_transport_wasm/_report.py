"""What a module has used, told by its host program in a few bytes of memory that both processes share.

Owns their form, and the file behind the memory. So budgets are kept on every system: nobody has to look into another
process. The file has no name where a process can inherit it: whoever may write into a folder for temporary files could
put a link there, or shorten a file that is mapped, which ends both processes.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FORM = struct.Struct("@dQ")  # native: each number is written as a whole
_POSIX = os.name == "posix"


class Report:
    """The shared numbers, in an open file that ``create_file`` has made."""

    def __init__(self, fd: int) -> None:
        self._shared = mmap.mmap(fd, _FORM.size)

    def read(self) -> tuple[float, int]:
        """Give the milliseconds of CPU time and the bytes of memory. Raises ``ValueError`` once it is closed."""
        cpu_ms, memory_bytes = _FORM.unpack_from(self._shared)
        return cpu_ms, memory_bytes

    def tell_cpu(self, milliseconds: float) -> None:
        """Tell the CPU time since the module began."""
        struct.pack_into("@d", self._shared, 0, milliseconds)

    def tell_memory(self, size: int) -> None:
        """Tell the bytes of memory: those that it has, or those that it wanted and did not get."""
        struct.pack_into("@Q", self._shared, 8, size)

    def close(self) -> None:
        """Let go of the memory."""
        self._shared.close()


def create_file(folder: Path) -> IO[bytes]:
    """Make the file in a folder. On Windows it has a name, and nobody can shorten it or put another in its place."""
    file = _nameless(folder) if _POSIX else _named(f"{folder}/report")
    file.write(bytes(_FORM.size))
    return file


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _named(path: str) -> IO[bytes]:
    return open(path, "x+b", buffering=0)  # noqa: PTH123 - its ``name`` is a text then


def take_report(place: int | str) -> Report:
    """Open it in another process, by the descriptor that this has inherited, or by its path."""
    fd = os.open(place, os.O_RDWR | getattr(os, "O_BINARY", 0)) if isinstance(place, str) else place
    try:
        return Report(fd)
    finally:
        os.close(fd)
