"""The log: a JSONL file of envelopes, written before the call that emitted an event returns (section 7).

Owns the file. One ``write`` to an O_APPEND descriptor for each event: killing the process at any point loses none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import BadRequest, path_of, reason_of
from .hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class JsonlSink:
    """An append-only file. Its folder is made if need be; the file is for its owner's eyes only."""

    def __init__(self, path: str | Path) -> None:
        try:
            self.path = Path(path).absolute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_torn(self.path)
            self._fd = os.open(self.path, _FLAGS, 0o600)
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
    """Make the sink ``{"type": "jsonl", "path": …}``."""
    path = options.get("path")
    if not isinstance(path, str | Path):
        raise BadRequest(f"sinks: jsonl: path: expected a path, got {type(path).__name__}")
    return JsonlSink(path)
