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
        self.blank: int = 0
        """The blank lines that the last `feed` left out."""
        self._waiting = BytesIO()  # a list of parts costs 40 bytes for each, and a second copy to join them

    def feed(self, data: bytes) -> list[bytes]:
        """Append bytes that were read. Return the lines that they complete, with their ends, without blank lines.

        Raises ``LineTooLongError``. The buffer is of no use afterwards.
        """
        end = data.find(b"\n") + 1
        if end == len(data) <= self._limit + 1 and not (self._waiting.tell() or data.isspace()):  # as a rule
            self.blank = 0
            return [data] if data else []
        # `readlines` searches at the speed of memory; `split` goes byte by byte. A part of one line is not copied.
        lines = BytesIO(data).readlines() if 0 < end < len(data) else [data]
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if lines and self._waiting.tell():
            self._waiting.write(lines[0])
            lines[0] = self._waiting.getvalue()
            self._waiting = BytesIO()
        self._waiting.write(rest)
        if self._waiting.tell() > self._limit or (lines and max(map(len, lines)) > self._limit + 1):
            raise LineTooLongError
        found = [line for line in lines if not line.isspace()]
        self.blank = len(lines) - len(found)
        return found

    def rest(self) -> bytes:
        """Return the incomplete last line, once the stream has ended."""
        return self._waiting.getvalue()
