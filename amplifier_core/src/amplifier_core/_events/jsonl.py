"""The log: a JSONL file of envelopes, written before the call that emitted an event returns (section 7).

Owns the file, and does not read the lines. Each event is one ``write`` to an O_APPEND descriptor: killing the process
at any point loses none.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, path_of, reason_of, short
from amplifier_core.hookspecs import hookimpl, watch_forks

if sys.platform == "win32":  # pragma: no cover
    from .windows_file import locked, open_to_append
else:
    from .posix_file import locked, open_to_append

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import FileIO

_LOOKS = 1000
_LOCK_ROUNDS, _LOCK_PAUSE = 50, 0.002  # seconds


class JsonlSink:
    """An append-only file. A missing folder is made; only its owner can read a file that is made here.

    At ``rotate_bytes`` the log continues in a new file. The old one is kept under the next free number: ``PATH.1`` is
    the oldest. No file is ever deleted. Raises ``BadRequest`` if the file cannot be opened.
    """

    def __init__(self, path: str | Path, rotate_bytes: int | None = None) -> None:
        try:
            self.path = Path(path).absolute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_torn(self.path)
            self._rotate_bytes = rotate_bytes
            self._number = 1
            self._take(open_to_append(self.path))
            watch_forks(self)
        except (OSError, ValueError) as error:
            raise BadRequest(f"event log {path_of(path)}: {reason_of(error)}") from error

    def write(self, line: bytes) -> None:
        """Append one line. What a full disk, or a killed process, leaves of one becomes a line of its own."""
        if self._torn:
            self._write_after_torn(line)
            return
        written = os.write(self._fd, line)
        if written < len(line):
            self._write_rest(memoryview(line)[written:])
        self._torn = False
        self._size += len(line)
        if self._size >= self._rotate_at:
            self._rotate()

    def _write_after_torn(self, line: bytes) -> None:
        with _locked_soon(self._fd):  # another kernel may be about to end the same torn line
            whole = b"\n" + line if self._is_torn() else line
            self._torn = False
            try:
                self.write(whole)
            except OSError:
                self._torn = True  # perhaps: the next write looks again
                raise

    def _write_rest(self, rest: memoryview) -> None:
        """Write what the system has not taken at once."""
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._torn = not self._end_fragment()
            raise

    def _is_torn(self) -> bool:
        """Look whether the file ends in the middle of a line that nobody writes any more.

        Others may see a write of another kernel in pieces. An empty write waits for its end: then the file has grown.
        """
        if self._is_file:
            with contextlib.suppress(OSError), self.path.open("rb", buffering=0) as file:
                if self._is_current(os.fstat(file.fileno())):
                    return self._stays_torn(file)
        return True

    def _stays_torn(self, file: FileIO) -> bool:
        size = -1
        for _ in range(_LOOKS):
            os.write(self._fd, b"")
            before, size = size, file.seek(0, os.SEEK_END)
            if not size or _byte_at(file, size - 1) == b"\n":
                return False
            if size == before:
                return True
        return False

    def _end_fragment(self) -> bool:
        """Make a line feed of the last byte that was written: a full disk has room for that. ``False`` if it cannot be.

        Otherwise a line feed comes before the next line; but another kernel may write to the file before.
        """
        with contextlib.suppress(OSError):  # a pipe, or a file that is not there any more
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            with self.path.open("r+b", buffering=0) as file:
                if self._is_current(os.fstat(file.fileno())):
                    file.seek(end - 1)
                    return file.write(b"\n") == 1
        return False

    def _rotate(self) -> None:
        """Continue in a new file. If that fails, continue in the old one, and try again ``rotate_bytes`` later."""
        self._rotate_at += self._rotate_bytes or 0
        with contextlib.suppress(OSError):
            fd = self._next_file()
            os.close(self._fd)
            self._take(fd)

    def _next_file(self) -> int:
        """Open the next file. The old one is renamed first, unless another kernel with the same log has done so."""
        with locked(self._fd):
            if not self.path.exists() or not self._is_current(self.path.stat()):
                return open_to_append(self.path)
            kept = self._free_name()
            self.path.rename(kept)
            try:
                return open_to_append(self.path)
            except OSError:
                os.link(kept, self.path)  # fails if another kernel has made the file meanwhile
                kept.unlink()
                raise

    def _take(self, fd: int) -> None:
        """Continue in an open file."""
        found = os.fstat(fd)
        self._fd = fd
        self._size = found.st_size
        self._identity = found.st_dev, found.st_ino
        self._is_file = stat.S_ISREG(found.st_mode)  # a terminal or a pipe is not rotated
        self._rotate_at = (self._is_file and self._rotate_bytes) or math.inf

    def _is_current(self, found: os.stat_result) -> bool:
        """Tell whether this is the file that is written now."""
        return (found.st_dev, found.st_ino) == self._identity

    def _free_name(self) -> Path:
        while (name := self.path.with_name(f"{self.path.name}.{self._number}")).exists():
            self._number += 1
        return name

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    after_fork = close


def _byte_at(file: FileIO, place: int) -> bytes:
    file.seek(place)
    return file.read(1)


@contextlib.contextmanager
def _locked_soon(fd: int) -> Iterator[None]:
    """Wait for the same lock, for a moment: whoever has it for longer is no kernel."""
    with contextlib.ExitStack() as stack:
        for _ in range(_LOCK_ROUNDS):
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(locked(fd))
                break
            time.sleep(_LOCK_PAUSE)
        yield


def _ends_torn(path: Path) -> bool:
    """Tell whether the file may end with an incomplete line of an earlier process, or of one that is writing it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


_OPTIONS = ("path", "rotate_bytes")


@hookimpl
def open_sink(options: Mapping[str, Any]) -> JsonlSink:
    """Open the sink ``{"type": "jsonl", "path": …}``; ``rotate_bytes`` is optional. Raises ``BadRequest``."""
    for name in options:
        if name not in _OPTIONS:
            raise BadRequest(f"sinks: jsonl: {short(name)}: expected one of {', '.join(_OPTIONS)}")
    path = options.get("path")
    if not isinstance(path, str | Path):
        raise BadRequest(f"sinks: jsonl: path: expected a path, got {type(path).__name__}")
    rotate_bytes = options.get("rotate_bytes")
    if rotate_bytes is not None and (type(rotate_bytes) is not int or rotate_bytes <= 0):
        raise BadRequest(f"sinks: jsonl: rotate_bytes: expected a positive integer, got {short(rotate_bytes)}")
    return JsonlSink(path, rotate_bytes)
