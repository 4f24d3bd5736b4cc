"""Server-sent events of one response, looked at as they pass: whole events, within their size, and what is in them.

Owns lines and events. What a message means is for the guard, and the SDK, which reads the same bytes after it.
"""

from __future__ import annotations

import re

_END = re.compile(rb"\r\n|\n|\r")


class EventTooLargeError(ValueError):
    """An event exceeds the size of the largest message."""


class Events:
    """Cuts a stream of bytes into events of at most ``limit`` bytes. Each is given with its bytes as they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # of a line that has no end yet
        self._lines: list[bytes] = []  # of an event that has no end yet
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bytes, bool]]:
        """Take what was read and give the events that it completes: bytes, data, and whether there is an id."""
        self._size += len(data)
        held = bool(self._parts) and self._parts[-1].endswith(b"\r")
        if not held and b"\n" not in data and b"\r" not in data:
            self._parts.append(data)
            self._check()
            return []
        data = b"".join((*self._parts, data))
        rest = b""
        if data.endswith(b"\r"):  # half of a line end, perhaps
            data, rest = data[:-1], b"\r"
        *lines, last = _END.split(data)
        self._parts = [last + rest]
        events = []
        for line in lines:
            self._lines.append(line)
            if not line:
                events.append(self._event())
        self._size = sum(map(len, (*self._lines, *self._parts)))
        self._check()
        return events

    def _event(self) -> tuple[bytes, bytes, bool]:
        lines, self._lines = self._lines, []
        if sum(map(len, lines)) > self._limit + _FRAME:
            raise EventTooLargeError
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        kind = [line[6:].strip() for line in lines if line.startswith(b"event:")]
        named = any(line.startswith(b"id:") for line in lines)
        text = b"\n".join(data) if not kind or kind[-1] in (b"", b"message") else b""
        return b"\n".join((*lines, b"")), text, named

    def _check(self) -> None:
        if self._size > self._limit + _FRAME:
            raise EventTooLargeError


_FRAME = 1024  # bytes that the fields around the data may have
