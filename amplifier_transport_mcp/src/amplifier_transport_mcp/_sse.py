"""Server-sent events of one response: whole events, within their size, and the messages in them.

Owns lines and events. What a message means is for the exchange; the SDK reads the same bytes after it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LINE_END = re.compile(rb"\r\n|\n|\r")
_FRAME = 1024  # bytes that the fields around the data may have


class Event(NamedTuple):
    """One event: its bytes, the message in it (empty: none), and whether a client can resume after it."""

    raw: bytes
    message: bytes
    has_id: bool


class EventSplitter:
    """Splits a stream of bytes into events. ``check_size`` raises for a message with too many bytes."""

    def __init__(self, check_size: Callable[[int], None]) -> None:
        self._check_size = check_size
        self._parts: list[bytes] = []  # of a line that has no end yet
        self._lines: list[bytes] = []  # of an event that has no end yet
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Take what was read and give the events that it completes."""
        self._size += len(data)
        held = bool(self._parts) and self._parts[-1].endswith(b"\r")
        if not held and b"\n" not in data and b"\r" not in data:
            self._parts.append(data)
            self._check_size(self._size - _FRAME)
            return []
        data = b"".join((*self._parts, data))
        rest = b""
        if data.endswith(b"\r"):  # perhaps half of a line end
            data, rest = data[:-1], b"\r"
        *lines, last = _LINE_END.split(data)
        self._parts = [last + rest]
        events = []
        for line in lines:
            self._lines.append(line)
            if not line:
                events.append(self._event())
        self._size = sum(map(len, (*self._lines, *self._parts)))
        self._check_size(self._size - _FRAME)
        return events

    def _event(self) -> Event:
        lines, self._lines = self._lines, []
        self._check_size(sum(map(len, lines)) - _FRAME)
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        kind = [line[6:].strip() for line in lines if line.startswith(b"event:")]
        message = b"\n".join(data) if not kind or kind[-1] in (b"", b"message") else b""
        return Event(b"\n".join((*lines, b"")), message, any(line.startswith(b"id:") for line in lines))
