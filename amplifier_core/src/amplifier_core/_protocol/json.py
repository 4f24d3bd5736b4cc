"""Strict JSON: a value is checked before it is written; an error, in writing or reading, is one line.

Owns the codec. It does not know what the values mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import short

MAX_DEPTH = 200
"""The deepest nesting that is written. Deeper values are refused, and so are cycles."""

encode_checked = msgspec.json.Encoder().encode
"""Encode a value that is known to be JSON: built by the kernel, or decoded by it. Nothing is checked."""

_decode = msgspec.json.Decoder().decode

_EXACT = frozenset((str, int, bool, type(None)))

# What `_look` finds in a value, worst last. msgspec writes NaN as null, and sets, bytes and dates in forms of its own.
# So the types in a value are checked first, and its floats only if it has any.
_CLEAN, _HAS_FLOATS, _FOREIGN = 0, 1, 2


class NotJson(ValueError):
    """A value or a text is not JSON. ``path`` says where in a value, and ``problem`` what was expected, in one line."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def encode(value: object, where: str) -> bytes:
    """Encode to compact UTF-8 JSON, or raise ``NotJson`` whose message begins with ``where`` and the path below it.

    ``list`` and ``tuple`` are arrays. Subclasses, and types that JSON does not have, are refused.
    """
    verdict = _look(value, 0)
    text = b""
    if verdict != _FOREIGN:
        try:
            text = encode_checked(value)
        except ValueError:  # a lone surrogate, or an integer of more digits than Python will print
            verdict = _FOREIGN
    if verdict == _CLEAN or (verdict == _HAS_FLOATS and b"null" not in text):
        return text
    fault = _fault(value, where, 0)
    if fault is None:  # each null is a None, and none a NaN
        return text
    path, problem = fault
    raise NotJson(problem, path or where)


def decode(text: bytes | str | memoryview) -> Any:
    """Decode strict UTF-8 JSON, or raise ``NotJson`` with one line that says what is wrong and at which byte."""
    try:
        return _decode(text)
    except JSON_ERRORS as error:
        raise not_json(error) from None


JSON_ERRORS = (ValueError, RecursionError)
"""What a msgspec decoder raises for a text that it refuses."""


def not_json(error: Exception) -> NotJson:
    """Turn what a msgspec decoder raised into ``NotJson``."""
    return NotJson("nested too deeply" if isinstance(error, RecursionError) else str(error))


def scrub(value: object, depth: int = 0) -> Any:
    """Make JSON of any value, for a log that must not lose an event. ``repr`` replaces what is not JSON."""
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {
                scrub(key if isinstance(key, str) else short(key)): scrub(child, depth + 1)
                for key, child in value.items()
            }
        if isinstance(value, list | tuple):
            return [scrub(child, depth + 1) for child in value]
    if not _scalar_problem(value, type(value)):
        return value
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else short(value)


def _look(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return _FOREIGN
        children = value.values()
    elif kind is list or kind is tuple:
        children = value
    else:
        return _CLEAN if kind in _EXACT else _HAS_FLOATS if kind is float else _FOREIGN
    worst = _CLEAN
    for child in children:  # mostly few: `issuperset(map(type, children))` takes three times as long then
        kind = type(child)
        if kind in _EXACT:
            continue
        verdict = _HAS_FLOATS if kind is float else _look(child, depth + 1) if depth + 1 < MAX_DEPTH else _FOREIGN
        if verdict > worst:
            worst = verdict
            if worst == _FOREIGN:
                break
    return worst


def _fault(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """Return the path and the problem of the first part that is not JSON. The path "" means the whole value."""
    kind = type(value)
    if kind not in (dict, list, tuple):
        problem = _scalar_problem(value, kind)
        return (path, problem) if problem else None
    if depth == MAX_DEPTH:
        return "", f"nested more than {MAX_DEPTH} levels deep, or a cycle"
    if kind is dict:
        if problem := next(filter(None, map(_key_problem, value)), ""):
            return path, problem
        children = ((f"{path}.{key}", child) for key, child in value.items())
    else:
        children = ((f"{path}[{n}]", child) for n, child in enumerate(value))
    for at, child in children:
        if fault := _fault(child, at, depth + 1):
            return fault
    return None


def _key_problem(key: object) -> str:
    if type(key) is not str:
        return f"expected text as a key, got {type(key).__name__}"
    return "expected Unicode text as a key, got a lone surrogate" if _scalar_problem(key, str) else ""


def _scalar_problem(value: Any, kind: type) -> str:
    if kind is float:
        return "" if math.isfinite(value) else f"expected a finite number, got {value}"
    if kind not in _EXACT:
        return f"expected JSON, got {kind.__name__}"
    try:
        encode_checked(value)
    except ValueError:
        limit = "an integer of at most 4300 digits" if kind is int else "Unicode text, got a lone surrogate"
        return f"expected {limit}"
    return ""
