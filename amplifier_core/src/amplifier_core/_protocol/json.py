"""Strict JSON: a value is checked before it is written, a text before it is read; an error is one line.

Owns the codec. It does not know what the values mean.
"""

from __future__ import annotations

import asyncio
import enum
import re
import sys
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import orjson

from .errors import short
from .weight import MAX_DEPTH, MESSAGE_BYTES, brackets, look, needs_look

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 256 * 1024
"""Bytes of a text that ``decode_large`` and ``decode_message_large`` are for: a look at it holds the event loop."""

encode_checked = msgspec.json.Encoder().encode
"""Encode a value that is known to be JSON: built by the kernel, or decoded by it. Nothing is checked."""

decode_checked = msgspec.json.Decoder().decode
"""Decode a text that is known to be JSON: encoded by the kernel. Nothing is checked before."""

_EXACT = frozenset((str, int, bool, type(None)))

_dumps = orjson.dumps
_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_ORJSON_DEPTH = 254  # levels that orjson writes
_MORE = _ORJSON_DEPTH - MAX_DEPTH

_pack = msgspec.msgpack.Encoder().encode
_MAY_BE_NAN = re.compile(rb"\xcb[\x7f\xff]").search
_TRIES = 1000
_FLOAT = 0xCB

_references = sys.getrefcount
_FRAGMENT = orjson.Fragment  # raw text, which orjson writes unseen, and msgspec refuses
_WITHOUT_FRAGMENTS = _references(_FRAGMENT)
_PROBE = _FRAGMENT(b"")
_COUNTED = _references(_FRAGMENT) > _WITHOUT_FRAGMENTS  # since orjson 3.13, each instance holds its class
del _PROBE


class NotJson(ValueError):
    """A value or a text is not JSON. ``path`` says where in a value, and ``problem`` what was expected, in one line."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def encode(value: object, where: str) -> bytes:
    """Encode to compact UTF-8 JSON, or raise ``NotJson`` whose message begins with ``where`` and the path below it.

    ``list`` and ``tuple`` are arrays, a ``UUID`` is its text, and a member of an ``Enum`` its value. Subclasses, and
    types that JSON does not have, are refused.
    """
    shape = _shape(value)
    if shape == _FLAT:
        try:
            return _dumps(value, None, _OPTIONS)
        except TypeError:  # such as integers of more than 64 bits
            return _look_and_encode(value, where)
    return _encoded(value, shape) or _look_and_encode(value, where)


def _look_and_encode(value: object, where: str) -> bytes:
    if fault := _fault(value, 0):
        path, problem = fault
        raise NotJson(problem, where + path)
    return encode_checked(value)


def encode_deeper(value: object, where: str, more: int) -> bytes:
    """Encode as ``encode`` does what may be nested so many levels ``more``."""
    text = _encoded(value, _shape(value))
    if text is None:
        if fault := _fault(value, -more):
            path, problem = fault
            raise NotJson(problem, where + path)
        text = encode_checked(value)
    return text


def _encoded(value: object, shape: int) -> bytes | None:
    """Encode a value if it is strict JSON for sure. ``None``: it has to be looked at."""
    try:
        if shape == _WIDE:
            text = _dumps_deeper(value)
        else:
            text = _dumps(value, None, _OPTIONS)
            if len(text) > 2 * MAX_DEPTH and brackets(text) > MAX_DEPTH:
                text = _dumps_deeper(value)
        # `null` stands for None, and for what is no finite number.
        if (not _COUNTED or text.find(b"null") >= 0) and _may_have_nan(_pack(value)):
            return None
    except (TypeError, ValueError, RecursionError):
        return None
    return text if _references(_FRAGMENT) <= _WITHOUT_FRAGMENTS else None


def _dumps_deeper(value: object) -> bytes:
    """Encode within so many lists that orjson's limit of depth becomes ours: 5 µs, and a look takes far longer."""
    for _ in range(_MORE):
        value = [value]
    return _dumps(value, None, _OPTIONS)[_MORE:-_MORE]


def _shape(value: Any) -> int:
    """Tell whether a value is an object of a few scalars, each of them JSON, or has a long list at the top."""
    if type(value) is not dict or len(value) > _FEW:
        return _FLAT if type(value) in _EXACT else _NESTED
    shape = _FLAT
    for child in value.values():
        kind = type(child)
        if kind in _EXACT or (kind is float and isfinite(child)):
            continue
        if kind in _CONTAINERS and len(child) > _FEW:
            return _WIDE
        shape = _NESTED
    return shape


_FLAT, _NESTED, _WIDE = range(3)
_FEW = 16  # members that are looked at one by one; for more, the encoders are faster


def _may_have_nan(packed: bytes) -> bool:
    """Tell whether a value in MessagePack, which has floats as they are, may have one that is no finite number."""
    for mark in b"\x7f\xff":  # rare, and quickly found: what begins with them after 0xCB is no finite number, or large
        at = -1
        for _ in range(_TRIES):
            at = packed.find(mark, at + 1)
            if at < 0:
                break
            if packed[at - 1] == _FLOAT:
                return True
        else:
            return _MAY_BE_NAN(packed) is not None
    return False


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
    if isinstance(value, enum.Enum):
        return scrub(value.value, depth + 1)
    if not _scalar_problem(value, type(value)):
        return str(value) if type(value) is UUID else value
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else short(value)


def _fault(value: Any, depth: int) -> tuple[str, str] | None:
    """Return the path and the problem of the first part that is not JSON."""
    kind = type(value)
    if kind not in _CONTAINERS:
        if isinstance(value, enum.Enum):
            return _fault(value.value, depth)
        problem = _scalar_problem(value, kind)
        return ("", problem) if problem else None
    if depth == MAX_DEPTH:
        return _TOO_DEEP
    if kind is dict:
        for key in value:
            if problem := _key_problem(key):
                return "", problem
        children = value.items()
    else:
        children = enumerate(value)
    for key, child in children:
        if fault := _fault(child, depth + 1):
            path, problem = fault
            return fault if fault is _TOO_DEEP else (f".{key}{path}" if kind is dict else f"[{key}]{path}", problem)
    return None


_CONTAINERS = frozenset((dict, list, tuple))
_TOO_DEEP = "", f"nested more than {MAX_DEPTH} levels deep, or a cycle"


def _key_problem(key: object) -> str:
    if type(key) is not str:
        return f"expected text as a key, got {type(key).__name__}"
    return "expected Unicode text as a key, got a lone surrogate" if _scalar_problem(key, str) else ""


def _scalar_problem(value: Any, kind: type) -> str:
    if kind is float:
        return "" if isfinite(value) else f"expected a finite number, got {value}"
    if kind not in _EXACT and kind is not UUID:
        return f"expected JSON, got {kind.__name__}"
    try:
        encode_checked(value)
    except ValueError:
        limit = "an integer of at most 4300 digits" if kind is int else "Unicode text, got a lone surrogate"
        return f"expected {limit}"
    return ""
