"""The log: a JSONL file of envelopes, written before the call that emitted an event returns (section 7).

Owns the file. One ``write`` to an O_APPEND descriptor for each event: killing the process at any point loses none.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, path_of, reason_of, short
from amplifier_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
for _name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):  # the last: no pipe without a reader holds up the kernel
    _FLAGS |= getattr(os, _name, 0)


class JsonlSink:
    """An append-only file. Its folder is made if need be; the file is for its owner's eyes only.

    At ``rotate_bytes`` it goes on in a new file, and the old one is kept under the next free number: ``PATH.1`` is
    the oldest. Nothing is ever deleted here.
    """

    def __init__(self, path: str | Path, rotate_bytes: int | None = None) -> None:
        try:
            self.path = Path(path).absolute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_torn(self.path)
            self._rotate_bytes = rotate_bytes
            self._number = 1
            self._take(os.open(self.path, _FLAGS, 0o600))
        except (OSError, ValueError) as error:
            raise BadRequest(f"event log {path_of(path)}: {reason_of(error)}") from error

    def write(self, line: bytes) -> None:
        """Append one line. A line that was cut off by a full disk is ended before the next one."""
        whole = b"\n" + line if self._torn else line
        view: bytes | memoryview = whole
        try:
            while (written := os.write(self._fd, view)) < len(view):
                view = memoryview(view)[written:]
        except OSError:
            self._torn = self._torn or len(view) < len(whole)
            raise
        self._torn = False
        self._size += len(whole)
        if self._size >= self._rotate_at:
            self._rotate()

    def _rotate(self) -> None:
        """Go on in a new file. Where that fails, go on in the old one, and try again when it has grown as much more."""
        self._rotate_at += self._rotate_bytes or 0
        with contextlib.suppress(OSError):
            fd = self._next_file()
            os.close(self._fd)
            self._take(fd)

    def _next_file(self) -> int:
        """Open the file to go on in, and have the old one kept, unless another kernel with the same log did so."""
        with _locked(self._fd):
            found = self.path.stat()
            if (found.st_dev, found.st_ino) != self._identity:
                return os.open(self.path, _FLAGS, 0o600)
            kept = self._free_name()
            self.path.rename(kept)
            try:
                return os.open(self.path, _FLAGS, 0o600)
            except OSError:
                kept.rename(self.path)
                raise

    def _take(self, fd: int) -> None:
        """Go on with an open file."""
        found = os.fstat(fd)
        self._fd = fd
        self._size = found.st_size
        self._identity = found.st_dev, found.st_ino
        self._rotate_at = self._rotate_bytes or math.inf
        if not stat.S_ISREG(found.st_mode):  # a terminal or a pipe stays one
            self._rotate_at = math.inf

    def _free_name(self) -> Path:
        while (name := self.path.with_name(f"{self.path.name}.{self._number}")).exists():
            self._number += 1
        return name

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    """Keep other kernels that write to the same file from rotating it at the same time; ``OSError`` if one does."""
    if fcntl is None:
        yield
        return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _ends_torn(path: Path) -> bool:
    """Tell whether an earlier process left half a line at the end of the file."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


@hookimpl
def open_sink(options: Mapping[str, Any]) -> JsonlSink:
    """Make the sink ``{"type": "jsonl", "path": …}``, with ``rotate_bytes`` if it is to go on in new files."""
    path = options.get("path")
    if not isinstance(path, str | Path):
        raise BadRequest(f"sinks: jsonl: path: expected a path, got {type(path).__name__}")
    rotate_bytes = options.get("rotate_bytes")
    if rotate_bytes is not None and (type(rotate_bytes) is not int or rotate_bytes <= 0):
        raise BadRequest(f"sinks: jsonl: rotate_bytes: expected a positive integer, got {short(rotate_bytes)}")
    return JsonlSink(path, rotate_bytes)
