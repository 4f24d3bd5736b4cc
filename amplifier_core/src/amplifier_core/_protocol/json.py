"""Strict JSON: a value is checked before it is written, a text before it is read; an error is one line.

Owns the codec. It does not know what the values mean.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import short
from .weight import MAX_DEPTH, MESSAGE_BYTES, look, needs_look

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 256 * 1024
"""Bytes of a text that ``decode_large`` and ``decode_message_large`` are for: a look at it holds the event loop."""

encode_checked = msgspec.json.Encoder().encode
"""Encode a value that is known to be JSON: built by the kernel, or decoded by it. Nothing is checked."""

decode_checked = msgspec.json.Decoder().decode
"""Decode a text that is known to be JSON: encoded by the kernel. Nothing is checked before."""

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


def decode(text: bytes | str | memoryview, limit: int = MESSAGE_BYTES) -> Any:
    """Decode strict UTF-8 JSON, or raise ``NotJson`` with one line that says what is wrong and, mostly, at which byte.

    A text that is nested more than 200 levels deep is refused before it is decoded. So is one whose values would take
    more than one and a half times ``limit``, which is that of the message it came in (but a MiB is always allowed).
    """
    try:
        if type(text) is not bytes:
            text = text.encode() if isinstance(text, str) else bytes(text)
        if needs_look(text, limit):
            finish(look(text, limit))
        return decode_checked(text)
    except ValueError as error:
        raise NotJson(str(error)) from None


async def decode_large(text: bytes, limit: int = MESSAGE_BYTES) -> Any:
    """Decode as ``decode`` does, but look at the text in slices, and let other tasks run between them."""
    try:
        if needs_look(text, limit):
            await finish_in_turns(look(text, limit))
        return decode_checked(text)
    except ValueError as error:
        raise NotJson(str(error)) from None


def finish(slices: Iterator[None]) -> None:
    """Do work that is cut into slices, at once."""
    for _ in slices:
        pass


async def finish_in_turns(slices: Iterator[None]) -> None:
    """Do work that is cut into slices, and let other tasks run after each one."""
    for _ in slices:
        await asyncio.sleep(0)


def printable_json(text: bytes) -> bytes:
    """Escape what other readers take for the end of a line, and what a terminal obeys. The value stays the same.

    That are the control characters beyond those that JSON escapes, U+2028, U+2029, and those that turn the direction.
    """
    if b"\x7f" in text or b"\xc2" in text or b"\xe2" in text:  # the first bytes of all of them
        return _CONTROLS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), text)
    return text


_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2(?:\x80[\xa8-\xae]|\x81[\xa6-\xa9])")


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
