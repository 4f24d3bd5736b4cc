"""The lines of a log: of its rotated files too, oldest first, and of what is written to it meanwhile.

Owns the files and the bound of a line. It does not know what a line says: see `_entry`.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LINE_MAX", "Log"]

LINE_MAX = 16 * 1024 * 1024
"""Bytes of a line. A longer one is skipped and counted."""

_POLL_SECONDS = 0.2
_LOOKS = 3  # at the files, before one that is not found is taken for removed: a kernel may rename it at that moment


class Log:
    """A log, from the oldest rotated file to the one that is written now. ``OSError`` if there is none.

    With ``follow`` it has no end: its lines come as they are written, also after a rotation.
    """

    def __init__(self, path: Path, *, follow: bool = False) -> None:
        self._path = path
        self.follow: bool = follow
        self.too_long = 0
        """How many lines were longer than ``LINE_MAX``, and skipped."""
        self.size = sum(each.stat().st_size for each in self._files())
        """Bytes of all files, when it was opened."""
        self.read = 0
        """Bytes that were read so far."""
        if not self._files():
            path.stat()  # raises

    def lines(self) -> Iterator[bytes]:
        """Give each line, without its end. The last one may be incomplete, and without ``follow`` it comes as it is."""
        file = self._open_after(None)
        while file is not None:
            with file:
                yield from self._lines_of(file)
                following = self._open_after(file)
            file = following

    def _lines_of(self, file: IO[bytes]) -> Iterator[bytes]:
        """Give the lines of one file, to its end, or until another file continues it."""
        begun = b""
        last_look = False
        while True:
            piece = file.readline(LINE_MAX + 1 - len(begun))
            self.read += len(piece)
            line = begun + piece
            if line.endswith(b"\n"):
                yield line[:-1]
                begun = b""
            elif len(line) > LINE_MAX:
                self._skip(file)
                begun = b""
            elif piece:
                begun = line
            elif not self.follow or last_look:
                break
            else:
                last_look = self._wait(file)
        if begun:
            yield begun

    def has(self, path: Path) -> bool:
        """Tell whether a file is one of the log's, by whatever name."""
        return path.exists() and any(path.samefile(each) for each in self._files())

    def _skip(self, file: IO[bytes]) -> None:
        """Read to the end of a line that is too long. With ``follow``, what is written of it later is no event."""
        self.too_long += 1
        while (piece := file.readline(LINE_MAX)) and not piece.endswith(b"\n"):
            self.read += len(piece)
        self.read += len(piece)

    def _wait(self, file: IO[bytes]) -> bool:
        """Wait for more. True: another file continues this one, which has to be read to its end once more."""
        if self._after(file) is not None:
            return True
        time.sleep(_POLL_SECONDS)
        return False

    def _files(self) -> list[Path]:
        """List the files that there are now, oldest first. A kernel renames only the one that it writes."""
        name = f"{self._path.name}."
        numbers = [each.name.removeprefix(name) for each in self._path.parent.glob("*") if each.name.startswith(name)]
        kept = sorted(int(number) for number in numbers if number.isascii() and number.isdecimal())
        files = [*(self._path.with_name(f"{name}{number}") for number in kept), self._path]
        return [file for file in files if file.exists()]

    def _open_after(self, file: IO[bytes] | None) -> IO[bytes] | None:
        """Open the file that continues another one. Between a look and the opening, a kernel may have renamed it."""
        while (path := self._after(file)) is not None:
            with contextlib.suppress(FileNotFoundError):
                opened = path.open("rb")
                if (again := self._after(file)) is not None and _is_same(again, opened):
                    return opened
                opened.close()
        return None

    def _after(self, file: IO[bytes] | None) -> Path | None:
        """Find the file that continues an open one, by whatever name that has now. After ``None`` comes the first."""
        files = self._files()
        if file is None:
            return files[0] if files else None
        for _ in range(_LOOKS):
            for n, each in enumerate(files, 1):
                if _is_same(each, file):
                    return files[n] if n < len(files) else None
            files = self._files()
        return files[-1] if files else None  # the open one was removed


def _is_same(path: Path, file: IO[bytes]) -> bool:
    here = os.fstat(file.fileno())
    with contextlib.suppress(FileNotFoundError):  # it was renamed at this moment
        found = path.stat()
        return (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino)
    return False
