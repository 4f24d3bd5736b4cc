"""The log: a JSONL file of envelopes, written before the call that emitted an event returns (section 7).

Owns the file. One ``write`` to an O_APPEND descriptor for each event: killing the process at any point loses none.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import BadRequest, path_of, reason_of, short
from .hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

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
            self._fd = os.open(self.path, _FLAGS, 0o600)
            found = os.fstat(self._fd)
        except (OSError, ValueError) as error:
            raise BadRequest(f"event log {path_of(path)}: {reason_of(error)}") from error
        self._size = found.st_size
        self._rotate_bytes = rotate_bytes if stat.S_ISREG(found.st_mode) else None  # what is no file stays one
        self._rotate_at = self._rotate_bytes or math.inf
        self._number = 1

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
        while (kept := self.path.with_name(f"{self.path.name}.{self._number}")).exists():
            self._number += 1
        with contextlib.suppress(OSError):
            self.path.rename(kept)
            fd = os.open(self.path, _FLAGS, 0o600)
            os.close(self._fd)
            self._fd, self._size, self._rotate_at = fd, 0, self._rotate_bytes or math.inf

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


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
