"""Strict JSON: what is written is checked as it is written, what is read is refused with one line.

Owns the codec. It does not know what the values mean.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

MAX_DEPTH = 200
"""Levels of nesting that are written. Deeper values are refused, which also ends cycles."""

encode_checked = msgspec.json.Encoder().encode
"""Encode a value that is known to be JSON: built by the kernel, or decoded by it. Nothing is checked."""

_decode = msgspec.json.Decoder().decode

_EXACT = frozenset((str, int, bool, type(None)))
_SCALARS = _EXACT | {float}
_STRINGS = frozenset((str,))
_CONTAINERS = (dict, list, tuple)

# What the codec makes of a value, worst last. msgspec writes NaN as null and sets, bytes and dates as it likes,
# so types are looked at first, whole containers at a time, and floats only where there are any.
_CLEAN, _HAS_FLOATS, _FOREIGN = 0, 1, 2


class NotJson(ValueError):
    """A value or a text is not JSON; the one-line message says where and what was expected."""


def encode(value: object, where: str) -> bytes:
    """Encode to compact UTF-8 JSON, or raise ``NotJson`` whose message begins with the path in ``where``.

    ``list`` and ``tuple`` are arrays; subclasses and everything else that JSON has no word for are refused.
    """
    verdict = _look(value, 0)
    if verdict == _FOREIGN:
        raise NotJson(_fault(value, where, 0))
    try:
        text = encode_checked(value)
    except UnicodeEncodeError:
        raise NotJson(_fault(value, where, 0)) from None
    except ValueError as error:  # an integer of more digits than Python will print
        raise NotJson(f"{where}: {error}") from None
    if verdict == _HAS_FLOATS and b"null" in text and (fault := _fault(value, where, 0)):
        raise NotJson(fault)
    return text


def decode(text: bytes | str | memoryview) -> Any:  # noqa: ANN401 - JSON has no narrower type
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


def scrub(value: object) -> Any:  # noqa: ANN401 - any JSON
    """Make JSON of anything, for a log that must not lose what it cannot say; ``repr`` stands for what is none."""
    if isinstance(value, dict):
        return {scrub(str(key)): scrub(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(child) for child in value]
    if not isinstance(value, str):
        return value if type(value) in _SCALARS and not _fault(value, "", 0) else scrub(repr(value))
    return value.encode(errors="backslashreplace").decode()


def _look(value: object, depth: int) -> int:
    kind = type(value)
    if kind is dict:
        for key in value:  # type: ignore[attr-defined]
            if type(key) is not str:
                return _FOREIGN
        children = value.values()  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        children = value
    else:
        return _CLEAN if kind in _EXACT else _HAS_FLOATS if kind is float else _FOREIGN
    worst = _CLEAN
    for child in children:  # few, as a rule: `issuperset(map(type, children))` costs three times as much then
        kind = type(child)
        if kind in _EXACT:
            continue
        verdict = _HAS_FLOATS if kind is float else _look(child, depth + 1) if depth < MAX_DEPTH else _FOREIGN
        if verdict > worst:
            worst = verdict
            if worst == _FOREIGN:
                break
    return worst


def _fault(value: object, where: str, depth: int) -> str:
    """Find the first thing that is not JSON and say where it is; empty if there is none."""
    kind = type(value)
    if kind is str:
        return "" if value.isascii() or _encodes(value) else f"{where}: expected Unicode text, got a lone surrogate"  # type: ignore[attr-defined,arg-type]
    if kind is float:
        return "" if math.isfinite(value) else f"{where}: expected a finite number, got {value}"  # type: ignore[arg-type]
    if kind in _EXACT:
        return ""
    if kind not in _CONTAINERS:
        return f"{where}: expected JSON, got {kind.__name__}"
    if depth > MAX_DEPTH:
        return f"{re.split(r'[.[]', where)[0]}: nested more than {MAX_DEPTH} levels deep, or a cycle"
    if kind is not dict:
        faults = (_fault(child, f"{where}[{n}]", depth + 1) for n, child in enumerate(value))  # type: ignore[arg-type,var-annotated]
    else:
        faults = (_member_fault(key, child, where, depth) for key, child in value.items())  # type: ignore[attr-defined]
    return next(filter(None, faults), "")


def _member_fault(key: object, value: object, where: str, depth: int) -> str:
    if type(key) is not str:
        return f"{where}: expected text as a key, got {type(key).__name__}"
    return _fault(key, f"{where} (a key)", depth) or _fault(value, f"{where}.{key}", depth + 1)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
