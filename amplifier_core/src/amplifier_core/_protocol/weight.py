"""What a JSON text would become: how deep it nests, and how much memory its values would take.

Owns the look at a text before a decoder sees it. It judges neither spelling nor shape: the decoder does. What it says
of a text is exact up to the first place where that is no JSON, and the decoder goes no further.
"""

from __future__ import annotations

import codecs
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 200
"""The deepest nesting that is written or read. Deeper values are refused, and so are cycles."""

SHORT = 2 * MAX_DEPTH
"""Bytes of a text that cannot be too deep, since each level has two brackets, nor take too much memory."""

MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest single message, in bytes of JSON, unless the descriptor sets another limit."""

_SLICE = 64 * 1024  # bytes looked at between two turns of the loop: 1 ms, or 5 ms of the worst texts
_LEAST = 1024 * 1024  # bytes of values that any text may become
_GROWTH = 48  # values take at most so many times the memory of their text: ``[{"é":[]},…]`` comes near
_SMALL = _LEAST // _GROWTH
_FEW = MAX_DEPTH // 2  # marks of each kind
_FEW_TAKE = _FEW * (128 + 216 + 40 + 40 + 28) + 40  # bytes of what they stand for: see `_weigh`

_MARKS, _BRACKETS = b'[]{}",:', b'[]{}"'
_OPEN_OR_BETWEEN = (b"[", b"{", b",", b":", b'"')
_UP_DOWN = b"\1\xff"
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # read as signed bytes, these are 1 and -1
_CONTINUED = bytes(range(0x80, 0xC0))  # the bytes of a character after its first
_TWO_BYTES, _FOUR_BYTES = bytes(range(0xC4, 0xF0)), bytes(range(0xF0, 0xF8))  # the first, of a character that wide


def needs_look(text: bytes, limit: int) -> bool:
    """Tell whether a text may be too deep, or too large in memory. Few are."""
    if len(text) <= SHORT:
        return False
    if len(text) <= _SMALL and brackets(text) <= MAX_DEPTH:
        return False
    return not (_is_shallow(text) if _is_light(text, limit) else _has_few_values(text, limit))


def look(text: bytes, limit: int) -> Iterator[None]:
    """Look at a text that came in a message of at most ``limit`` bytes, and yield after each slice.

    Its values may take half as much again. Raises ``ValueError`` with one line.
    """
    glance = _Glance(_allowed(limit), _BRACKETS if _is_light(text, limit) else _MARKS)
    for start in range(0, len(text), _SLICE):
        glance.take(text[start : start + _SLICE])
        yield


def look_at_utf8(text: bytes) -> Iterator[None]:
    """Check that a text is UTF-8, and yield after each slice. Raises ``UnicodeDecodeError``."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for start in range(0, len(text), _SLICE):
        decode(text[start : start + _SLICE], final=start + _SLICE >= len(text))
        yield


def _allowed(limit: int) -> int:
    return max(_LEAST, limit * 3 // 2)


def _is_light(text: bytes, limit: int) -> bool:
    """Tell whether a text is too short for values that take too much."""
    return len(text) * _GROWTH <= _allowed(limit)


def _has_few_values(text: bytes, limit: int) -> bool:
    """Tell whether a text has too few values to take too much or to be too deep. ``False`` says nothing."""
    width = 1 if text.isascii() and text.find(b"\\") < 0 else 4
    return len(text) * width + _FEW_TAKE <= _allowed(limit) and all(_has_few(text, mark) for mark in _OPEN_OR_BETWEEN)


def _has_few(text: bytes, mark: bytes) -> bool:
    at = -1
    for _ in range(_FEW + 1):
        at = text.find(mark, at + 1)
        if at < 0:
            return True
    return False


def _is_shallow(text: bytes) -> bool:
    """Tell whether a text cannot be too deep. ``False`` says nothing.

    There is no level without its bracket. Rows of objects have many; so the second count leaves out those that open
    where another one has just closed. Each that is left out before the deepest place is made up for by one that closes
    there, and those after it, or in strings, can only add.
    """
    opened = brackets(text)
    if opened > MAX_DEPTH:
        start = text.find(b"},")
        between = text[start : text.find(b"{", start, start + 50) + 1]
        if between.translate(None, b" \t\r\n") == b"},{":
            opened -= text.count(between)
    return opened <= MAX_DEPTH


def brackets(text: bytes) -> int:
    """Count what opens. To leave the brackets out takes a tenth of the time of ``count``: it looks with ``memchr``."""
    return 2 * len(text) - len(text.replace(b"[", b"")) - len(text.replace(b"{", b""))


class _Glance:
    """What has been seen of one text. Its strings and escapes may begin in one slice and end in the next one."""

    __slots__ = ("_allowed", "_chars", "_depth", "_escape", "_in_string", "_long", "_marks", "_others", "_width")

    def __init__(self, allowed: int, marks: bytes) -> None:
        self._allowed = allowed
        self._others = bytes(set(range(256)).difference(marks))
        self._marks = [0] * len(_OPEN_OR_BETWEEN)
        self._chars = 40  # bytes that the characters take, and the one value that no mark stands for
        self._depth = 0
        self._in_string = False
        self._escape = b""  # a backslash at the end of a slice
        self._long = 0  # characters so far of the string that the slice ended in
        self._width = 1  # bytes that each of these takes

    def take(self, piece: bytes) -> None:
        """Look at the next slice. Raises ``ValueError``."""
        chars, width = len(piece), 1
        if self._escape or b"\\" in piece:
            piece = self._without_escapes(piece)
            chars, width = len(piece) - 5 * piece.count(b"\\u"), _escaped_width(piece)
        if not piece.isascii():
            chars -= len(piece) - len(piece.translate(None, _CONTINUED))
            width = max(width, _width(piece))
        self._count(self._outside(piece.translate(None, self._others)))
        self._weigh(piece, chars, width)

    def _without_escapes(self, piece: bytes) -> bytes:
        """Put one byte for each escaped quote and backslash. An escape that is cut off is kept for the next slice."""
        piece = self._escape + piece
        odd = (len(piece) - len(piece.rstrip(b"\\"))) % 2
        whole = piece[: len(piece) - odd].replace(b"\\\\", b".").replace(b'\\"', b".")
        cut = whole.find(b"\\u", max(0, len(whole) - 5)) if not odd else -1
        self._escape = b"\\" * odd if cut < 0 else whole[cut:]
        return whole if cut < 0 else whole[:cut]

    def _outside(self, marks: bytes) -> bytes:
        """Give the marks that are in no string."""
        quotes = marks.count(b'"')
        self._marks[-1] += quotes
        if self._in_string:
            marks = b'"' + marks
        self._in_string ^= quotes % 2 == 1
        if 2 * marks.count(b'""') == marks.count(b'"'):  # no string has any
            return marks.translate(None, b'"')
        return b"".join(marks.replace(b'""', b"").split(b'"')[::2])

    def _count(self, marks: bytes) -> None:
        """Count the marks, and follow the depth. Raises ``ValueError``."""
        counts = [marks.count(mark) for mark in _OPEN_OR_BETWEEN]
        opened = counts[0] + counts[1]
        if self._depth + opened > MAX_DEPTH and self._deepest(marks.translate(_STEPS, b",:")) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        self._depth += opened - marks.count(b"]") - marks.count(b"}")
        self._marks = list(map(add, self._marks, counts))

    def _deepest(self, steps: bytes) -> int:
        """Give the deepest level of a slice, or another one that is deep enough."""
        flat = steps.replace(_UP_DOWN, b"").replace(_UP_DOWN, b"").replace(_UP_DOWN, b"")
        most = self._depth + 3 + flat.count(b"\1")  # each time, the innermost level has gone
        return most if most <= MAX_DEPTH else max(accumulate(memoryview(steps).cast("b"), initial=self._depth))

    def _weigh(self, piece: bytes, chars: int, width: int) -> None:
        """Count what the characters take. One wide character makes its whole string wide. Raises ``ValueError``."""
        if self._long:
            self._chars += self._long * max(0, width - self._width)
            width = self._width = max(width, self._width)
        self._chars += chars * width
        last = piece.rfind(b'"')
        if not self._in_string:
            self._long, self._width = 0, 1
        elif last < 0:
            self._long += chars
        else:
            self._long, self._width = len(piece) - last, width
        lists, objects, commas, colons, quotes = self._marks
        weight = 40 * (lists + objects + commas + colons) + 88 * lists + 56 * objects + 120 * min(objects, colons)
        weight += 28 * quotes + self._chars
        if weight > self._allowed:
            raise ValueError(f"its values would take about {weight} bytes of memory or more, of {self._allowed}")


def _escaped_width(piece: bytes) -> int:
    """Give the bytes that an escaped character takes at most. Surrogates stand for characters of four."""
    escaped = piece.count(b"\\u")
    if escaped == piece.count(b"\\u00"):
        return 1
    return 4 if b"\\ud" in piece or b"\\uD" in piece else 2


def _width(piece: bytes) -> int:
    """Give the bytes that a character takes at most."""
    if len(piece.translate(None, _FOUR_BYTES)) < len(piece):
        return 4
    return 2 if len(piece.translate(None, _TWO_BYTES)) < len(piece) else 1
