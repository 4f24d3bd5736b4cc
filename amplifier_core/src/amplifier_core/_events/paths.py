"""JSON paths: which values of a JSON document they choose. The part of RFC 9535 that compares nothing.

Owns how a path is read, and the walk of many paths at once. It does not know what an event is.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, short
from amplifier_core._protocol.json import decode_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATHS_MAX, LENGTH_MAX = 256, 1024  # paths; characters of one

_WORDS = "$, .name, ['name'], [n], .*, [*], and .. before any of them"
_BLANK = r"[ \t\n\r]*"
_FIRST = "[A-Za-z_\x80-\U0010ffff]"
_ESCAPE = r"\\(?:[{0}\\/bfnrt]|u[0-9A-Fa-f]{{4}})"
_SEGMENT = re.compile(
    rf"{_BLANK}(?P<descends>\.(?=\.))?"
    rf"(?:\.(?:(?P<member>{_FIRST}(?:{_FIRST}|[0-9])*)|(?P<any>\*))"
    rf"|(?:(?<=\.)\.)?\[{_BLANK}(?:(?P<each>\*)|(?P<index>0|-?[1-9][0-9]{{0,14}})"
    rf"|'(?P<single>(?:[^'\\\x00-\x1f]|{_ESCAPE.format(chr(39))})*)'"
    rf'|"(?P<double>(?:[^"\\\x00-\x1f]|{_ESCAPE.format(chr(34))})*)"'
    rf"){_BLANK}\])"
)
_IN_SINGLE = re.compile(r'\\.|"')


class Segment:
    """One step of a path, and those after it. ``name`` chooses a member, ``index`` an item, neither all of them."""

    __slots__ = ("after", "descends", "index", "name")

    def __init__(self, name: str | None, index: int | None, *, descends: bool) -> None:
        self.name = name
        self.index = index
        self.descends = descends
        """Whether it begins anywhere below, too."""
        self.after: Segment | None = None

    def keys(self, node: Any) -> Iterable[Any]:
        """Give the keys of what this step chooses in an object or a list."""
        if type(node) is dict:
            if self.index is not None:
                return ()
            return list(node) if self.name is None else (self.name,) * (self.name in node)
        if self.name is not None:
            return ()
        if self.index is None:
            return range(len(node))
        at = self.index if self.index >= 0 else self.index + len(node)
        return (at,) * (0 <= at < len(node))


def read_path(text: object, where: str) -> Segment:
    """Read a path, and give its first step; that of ``$`` is ``.*``. Raises ``BadRequest``, which tells ``where``."""
    if not isinstance(text, str):
        raise BadRequest(f"{where}: expected a JSON path, got {type(text).__name__}")
    if len(text) > LENGTH_MAX:
        raise BadRequest(f"{where}: expected at most {LENGTH_MAX} characters, got {len(text)}")
    segments: list[Segment] = []
    at = 1
    while text[:1] == "$" and at < len(text) and (found := _SEGMENT.match(text, at)):
        segments.append(_segment(found, f"{where}: {short(text)}"))
        at = found.end()
    if text[:1] != "$" or at < len(text):
        here = at + 1 if text[:1] == "$" else 1
        raise BadRequest(f"{where}: {short(text)}: character {here}: expected one of {_WORDS}; nothing else is known")
    for segment, after in pairwise(segments):
        segment.after = after
    return segments[0] if segments else Segment(None, None, descends=False)


def _segment(found: re.Match[str], where: str) -> Segment:
    name, index = found["member"], found["index"]
    quoted = found["double"]
    if found["single"] is not None:
        quoted = _IN_SINGLE.sub(_as_double, found["single"])
    if quoted is not None:
        try:
            name = decode_checked(f'"{quoted}"')
        except ValueError:
            raise BadRequest(f"{where}: expected Unicode text as a name, got a lone surrogate") from None
    return Segment(name, int(index) if index is not None else None, descends=found["descends"] is not None)


def _as_double(found: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(found[0], found[0])


def replace(root: Any, paths: Sequence[Segment], mark: object) -> None:
    """Put ``mark`` in the place of each value below ``root`` that a path chooses. What is in such a value is gone.

    The time grows with the number of values, times that of the steps.
    """
    waiting: list[tuple[Any, Iterable[Segment]]] = [(root, paths)]
    while waiting:
        node, segments = waiting.pop()
        for key, steps in _choose(node, segments).items():
            if None in steps:
                node[key] = mark
            elif type(node[key]) in _CONTAINERS:
                waiting.append((node[key], [step for step in steps if step is not None]))


_CONTAINERS = (dict, list)


def _choose(node: Any, segments: Iterable[Segment]) -> dict[Any, dict[Segment | None, None]]:
    """Give the keys at which a path goes on, each with its next steps. ``None`` among them: a path ends there."""
    chosen: dict[Any, dict[Segment | None, None]] = {}
    for segment in segments:
        for key in segment.keys(node):
            chosen.setdefault(key, {})[segment.after] = None
        if segment.descends:
            for key, child in node.items() if type(node) is dict else enumerate(node):
                if type(child) in _CONTAINERS:
                    chosen.setdefault(key, {})[segment] = None
    return chosen
