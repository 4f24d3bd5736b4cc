"""The last events of a log, compressed as they are read.

Owns the bounds: how many events are kept, and how many bytes of them. What is older is left out and counted. The parts
of a block are compressed alone, so that a block can be let go, and those that are left are one stream all the same.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Blocks"]

_EVENTS = 500  # of a block, at most
_BYTES = 1024 * 1024  # after which a block is complete
_BYTES_MAX = 128 * 1024 * 1024  # of all that is kept, before it is compressed
_RAW = -15  # a window of 32 KiB, and neither head nor checksum


class _Block(msgspec.Struct):
    """Some events: for each a row and its line. Compressed when it is complete."""

    rows: bytes = b""
    lines: bytes = b""
    events: int = 0
    size: int = 0


class Blocks:
    """The rows and the lines of the last ``events_max`` events, at most."""

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self._events = min(_EVENTS, max(1, events_max // 100))  # of a block: so that a hundredth is lost at most
        self._kept: deque[_Block] = deque()
        self._rows: list[bytes] = []
        self._lines: list[bytes] = []
        self._size = 0
        self.events = 0
        """How many events are kept."""
        self.left_out = 0
        """How many events were before them."""

    def add(self, row: bytes, line: bytes) -> None:
        """Take the next event: its row and its line, none of which has an end of a line in it."""
        self._rows.append(row)
        self._lines.append(line)
        self._size += len(row) + len(line)
        self.events += 1
        if len(self._rows) >= self._events or self._size >= _BYTES:
            self.complete()

    def complete(self) -> None:
        """Compress what was added last. Whoever reads the rows or the lines has to call it before."""
        rows, lines = (_compressed(b"".join(b"%b\n" % each for each in part)) for part in (self._rows, self._lines))
        self._kept.append(_Block(rows, lines, len(self._rows), self._size))
        self._rows, self._lines, self._size = [], [], 0
        while self.events > self._events_max or sum(block.size for block in self._kept) > _BYTES_MAX:
            oldest = self._kept.popleft()
            self.events -= oldest.events
            self.left_out += oldest.events

    def rows(self) -> Iterator[bytes]:
        """Give the rows, each with the end of its line, as a stream without a head ("deflate-raw" in a browser)."""
        yield from (block.rows for block in self._kept)
        yield _END

    def lines(self) -> Iterator[bytes]:
        """Give the lines in the same way."""
        yield from (block.lines for block in self._kept)
        yield _END


def _compressed(text: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=_RAW)
    return deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)


_END = zlib.compressobj(wbits=_RAW).flush()
