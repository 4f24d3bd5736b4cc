"""The framing of section 3: one JSON object a line, ended by a line feed alone.

Owns lines and ids. It does no I/O.
"""

from __future__ import annotations

import re
from io import BytesIO

_ID = re.compile(rb'"id"\s*:\s*"(r\d+)"')
CANCEL = b'{"method":"cancel","params":{"id":"%b"}}\n'


class LineTooLongError(ValueError):
    """A line exceeds the size of the largest message."""


class LineBuffer:
    """Cuts a stream of bytes into lines of at most ``limit`` bytes, and keeps the start of an incomplete one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._waiting = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and give the lines that they complete, with their ends."""
        if 0 <= data.find(b"\n") == len(data) - 1 <= self._limit and not self._parts:  # as a rule it is one whole line
            return [] if data.isspace() else [data]
        lines = BytesIO(data).readlines()  # looks for the ends as fast as memory is read; split goes byte by byte
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts, self._waiting = [], 0
        if rest:
            self._parts.append(rest)
            self._waiting += len(rest)
        if self._waiting > self._limit or (lines and max(map(len, lines)) > self._limit + 1):
            raise LineTooLongError
        return [line for line in lines if not line.isspace()]


def frame(request_id: str, method: str, params: bytes) -> bytes:
    """Write one request line."""
    return b'{"id":"%b","method":"%b","params":%b}\n' % (request_id.encode(), method.encode(), params)


def id_in(line: bytes) -> str | None:
    """Find the id in a malformed line, so that its request can fail at once."""
    found = _ID.search(line)
    return found[1].decode() if found else None
