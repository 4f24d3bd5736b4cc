"""Lines: a stream of bytes is cut at each line feed (section 3, and the NDJSON of section 4).

Owns the cutting and the bound on a line. It does no I/O.
"""

from __future__ import annotations

from io import BytesIO


class LineTooLongError(ValueError):
    """A line exceeds the size of the largest message."""


class LineBuffer:
    """Cuts a stream of bytes into lines of at most ``limit`` bytes, and keeps the incomplete last one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._waiting = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Append bytes that were read. Return the lines that they complete, with their ends, without blank lines.

        Raises ``LineTooLongError``. The buffer is of no use afterwards.
        """
        if 0 <= data.find(b"\n") == len(data) - 1 <= self._limit and not self._parts:  # as a rule it is one whole line
            return [] if data.isspace() else [data]
        lines = BytesIO(data).readlines()  # searches at the speed of memory; split goes byte by byte
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

    def rest(self) -> bytes:
        """Return the incomplete last line, once the stream has ended."""
        return b"".join(self._parts)
