"""Where a replay and its log part.

Owns the words for it.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core import KernelError

if TYPE_CHECKING:
    from ._log import Entry

_SHOWN = 400  # characters


class Difference(KernelError, code="difference"):
    """The replay did something else than the log has. ``seq`` is the number of the event in the log."""

    def __init__(self, entry: Entry, expected: str, got: str) -> None:
        self.seq: int = entry.seq or 0
        super().__init__(f"seq {self.seq}, {_short(entry.about())}: expected {_short(expected)}, got {_short(got)}")
        self.expected: str = expected
        self.got: str = got


def told(entry: Entry | None) -> str:
    """Show an event: its name, its module, and what it has."""
    if entry is None:
        return "nothing"
    said = entry.read_error() or entry.read()
    of = f" of {entry.module}" if entry.module else ""
    return f"{entry.event}{of} {said}".rstrip()


def part(expected: bytes, got: bytes) -> tuple[str, str]:
    """Show where two events part: the path of the first member that is another one, and its two values."""
    path, one, other = _first("$", msgspec.json.decode(expected), msgspec.json.decode(got))
    return f"{path} {one}", f"{other}"


def _first(path: str, expected: Any, got: Any) -> tuple[str, str, str]:
    """Find the first member that is another one."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in {**expected, **got}:
            if key not in expected or key not in got:
                return f"{path}.{key}", *(_shown(each.get(key, _NOTHING)) for each in (expected, got))  # type: ignore[return-value]
            if expected[key] != got[key]:
                return _first(f"{path}.{key}", expected[key], got[key])
    if isinstance(expected, list) and isinstance(got, list):
        for n, (one, other) in enumerate(zip_longest(expected, got, fillvalue=_NOTHING)):
            if one is _NOTHING or other is _NOTHING or one != other:
                return _first(f"{path}[{n}]", one, other)
    return path, _shown(expected), _shown(got)


_NOTHING = object()


def _shown(value: object) -> str:
    return "nothing" if value is _NOTHING else _short(msgspec.json.encode(value).decode())


def _short(text: str) -> str:
    """Cut a text of the log, and keep it on one line: a key may have any character."""
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()
