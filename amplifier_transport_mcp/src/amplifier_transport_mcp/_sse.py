"""Server-sent events of one response: the messages in them, and where a stream can be resumed.

Owns lines and fields, and their size. What a message means is for the exchange. Of what is no message nothing is kept.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID_MAX = 1024
"""Bytes that the id of an event may have."""
_FRAME = 2 * ID_MAX  # bytes that may be beside a message
_DIGITS = 9  # of a number of milliseconds
_END = b"\r\n"


class Event(NamedTuple):
    """One event: the message in it (empty: none), and the id of the place where the stream can be resumed after it."""

    message: bytes
    id: bytes | None


class EventSplitter:
    """Splits a stream of bytes into events. ``check_size`` raises for a message with too many bytes."""

    def __init__(self, check_size: Callable[[int], None]) -> None:
        self.retry = 0
        """Milliseconds before the stream is resumed, as the server wishes."""
        self._check_size = check_size
        self._line = bytearray()  # as far as it has come
        self._after_cr = False
        self._is_first = True
        self._begin()

    def _begin(self) -> None:
        self._data = bytearray()  # with a line end after each line
        self._kind = b""
        self._id: bytes | None = None

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Take what was read and give the events that it completes."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        for part in piece.splitlines(keepends=True):
            self._line += part
            self._check_size(len(self._line) + len(self._data) - _FRAME)
            if part[-1] in _END:
                line = self._line
                self._line = bytearray()
                if (event := self._take(line)) is not None:
                    yield event
        if piece:
            self._after_cr = piece.endswith(b"\r")

    def _take(self, line: bytearray) -> Event | None:
        """Take one line with its end; give the event that it ends."""
        del line[len(line) - (2 if line.endswith(_END) else 1) :]
        if self._is_first:
            self._is_first = False
            del line[: len(codecs.BOM_UTF8) * line.startswith(codecs.BOM_UTF8)]
        if not line:
            return self._end()
        if line.startswith(b"data:"):
            del line[: 6 if line.startswith(b"data: ") else 5]
            self._add(line)
        else:  # an id that is cut here is still too long
            self._take_field(*bytes(line[: ID_MAX + 16]).partition(b":")[::2])
        return None

    def _add(self, line: bytearray) -> None:
        """Add a line to the data. A single one, which may be large, is not copied."""
        line += b"\n"
        if self._data:
            self._data += line
        else:
            self._data = line

    def _take_field(self, name: bytes, value: bytes) -> None:
        value = value.removeprefix(b" ")
        if name == b"data":  # without a colon
            self._add(bytearray())
        elif name == b"event":
            self._kind = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():
            self.retry = int(value[:_DIGITS])

    def _end(self) -> Event:
        del self._data[-1:]
        self._check_size(len(self._data))
        message = bytes(self._data) if self._kind in (b"", b"message") else b""
        event = Event(message, self._id)
        self._begin()
        return event
