"""Events: the envelope, its names and its encoding (protocol, section 7).

Owns the form of an event. It does not know the observers and the sinks.
"""

from __future__ import annotations

import contextlib
import functools
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .json import NotJson, encode, encode_checked

DATA_LIMIT = 8192
"""Bytes of JSON above which a value in ``data`` is left out, unless the embedder says otherwise."""

TAILS = ("stderr", "earlier_stderr")
"""What the kernel and its transports tell of a module's stderr, by its names in ``data`` and in ``details``."""

NAME_MAX = 128
"""The most characters of an event's name, and of a pattern."""

LEAST_SIZE = 1024
"""Bytes: an event's data has room for eight times as much, however small the limit is."""

_OMITTED_SIZE, _SPARE = 100, 200  # bytes
_PIECE = 64 * 1024  # characters
_IN_TWO = b'"\\\b\f\n\r\t'  # escaped with two characters; other control characters take six
_IN_SIX = bytes(set(range(0x20)).difference(_IN_TWO))

KERNEL_EVENTS = frozenset((
    "kernel:start", "kernel:resume", "kernel:fork", "kernel:end", "session:start", "session:fork", "session:end",
    "session:span", "mount:pre_add", "mount:add", "mount:remove", "hook:register", "context:get", "context:set",
    "module:pre_invoke", "module:invoke", "module:start", "module:exit", "module:noise", "module:changed",
    "module:reply", "module:chunk", "module:wait",
    "policy:decision", "policy:request", "policy:answer", "hook:error", "sink:error", "events:dropped",
))  # fmt: skip
"""Names that the kernel alone emits, so that no module can forge the audit trail."""

_KERNEL_NAMESPACES = frozenset(("kernel", "session", "mount", "hook", "module", "policy", "sink", "events"))
_NAME = r"[a-z0-9][a-z0-9_.-]*(?::[a-z0-9][a-z0-9_.-]*)+"
_PATTERN = r"(?:\*|(?:[a-z0-9][a-z0-9_.-]*:)+(?:\*|[a-z0-9][a-z0-9_.-]*))"


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One envelope. ``ts`` is seconds since the Unix epoch, ``duration_ms`` milliseconds of the monotonic clock.

    A msgspec class, not an attrs one, for speed: an event costs mostly its making and encoding.
    """

    id: str
    ts: float
    event: str
    component: str
    seq: int | None = None
    module: str | None = None
    status: str | None = None
    duration_ms: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    data: dict[str, Any] = {}
    error: dict[str, Any] | None = None


def decode_event(line: bytes) -> Event:
    """Read one envelope that the kernel wrote."""
    return msgspec.json.decode(line, type=Event)


def event_id(ts: float, seq: int, tag: str) -> str:
    """Make an id that sorts by time, then by order of emission; ``tag`` tells kernels apart.

    16 hex digits are microseconds, 8 the order.
    """
    return "evt_" + _pack(int(ts * 1e6), seq & 0xFFFFFFFF).hex() + tag  # takes half the time of a format string


_pack = struct.Struct(">qI").pack


def is_event_name(name: object) -> bool:
    """Tell whether a name is of the form ``namespace:verb``, and of at most 128 characters."""
    return isinstance(name, str) and len(name) <= NAME_MAX and _is_event_name(name)


@functools.lru_cache(256)  # a cache, since names are few; bounded, since modules make up their own
def _is_event_name(name: str) -> bool:
    return re.fullmatch(_NAME, name) is not None


def is_event_pattern(pattern: object) -> bool:
    """Tell whether a pattern is ``*``, ``prefix:*`` or a name. A name like the kernel's own has to be one of them."""
    if not isinstance(pattern, str) or len(pattern) > NAME_MAX or re.fullmatch(_PATTERN, pattern) is None:
        return False
    return pattern.endswith("*") or pattern in KERNEL_EVENTS or pattern.partition(":")[0] not in _KERNEL_NAMESPACES


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern matches the name of an event."""
    return pattern in ("*", name) or (pattern.endswith(":*") and name.startswith(pattern[:-1]))


class SizeLimit(msgspec.Struct, frozen=True):
    """How large a value in ``data`` may be, in bytes of JSON (``inf``: any), and what replaces a larger one."""

    size: float = DATA_LIMIT
    sha256: bool = False

    def omitted(self, text: bytes | msgspec.Raw) -> dict[str, Any]:
        """Return the replacement of a value: the size of its JSON and, if the embedder asked for it, the SHA-256."""
        if not self.sha256:
            return {"$omitted": len(text)}
        from hashlib import sha256  # 1 ms, and few programs ask for it

        return {"$omitted": len(text), "$sha256": sha256(text).hexdigest()}

    def leave_out(self, data: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
        """Do as ``apply``, but for text under the names ``kept``, and with some room for what comes in later."""
        texts = {name: data[name] for name in kept if type(data.get(name)) is str}
        rest = {name: value for name, value in data.items() if name not in texts}
        return {**texts, **self.apply(rest, spare=_SPARE + len(texts) * (self.size + _SPARE))}

    def apply(self, data: Mapping[str, Any], tails: Sequence[str] = (), spare: float = 0) -> dict[str, Any]:
        """Replace each value that is too large. Of text under one of the names ``tails``, the end is kept.

        Once eight times the limit is full, the other members are left out, and their number is told.
        """
        kept: dict[str, Any] = {}
        left = 8 * max(self.size, LEAST_SIZE) - spare
        for key, value in data.items():
            if len(key) > left:  # to count the bytes of a long one takes time
                break
            if key in tails and type(value) is str:
                value = self._end_of(value)  # noqa: PLW2901 - the reason of a failure stands there
            omitted, size = self._look(value)
            left -= size + _size_of(key)
            if left < 0:
                break
            kept[key] = omitted or value
        left_out = len(data) - len(kept)
        return {**kept, "$omitted_members": left_out} if left_out else kept

    def _look(self, value: object) -> tuple[dict[str, Any] | None, int]:
        """Give what replaces a value if it is too large, and the bytes that the log gets."""
        if self.sha256:
            text = encode_checked(value)
            return (self.omitted(text), _OMITTED_SIZE) if len(text) > self.size else (None, len(text))
        size = _size_of(value)
        return ({"$omitted": size}, _OMITTED_SIZE) if size > self.size else (None, size)

    def cut(self, error: Mapping[str, Any]) -> dict[str, Any]:
        """Shorten an error for the log: its text, and each value of its details."""
        texts = {key: str(error[key])[: int(self.size or DATA_LIMIT) // 8] for key in ("code", "message")}
        return {**error, **texts, "details": self.apply(error.get("details", {}), TAILS)}

    def _end_of(self, text: str) -> str:
        """Give as much of the end of a text as is not too large."""
        kept = text
        while (size := _size_of(kept)) > self.size and kept:
            left = len(kept) - 1 - int(len(kept) * (size - self.size) / size)  # at least one character less
            kept = kept[len(kept) - left :]
        return kept


def _size_of(value: object) -> int:
    """Count the bytes of JSON that a value takes. Long text is not copied whole."""
    if type(value) is not str or len(value) <= _PIECE:
        return len(encode_checked(value))
    return 2 + sum(_size_in_string(value[n : n + _PIECE].encode()) for n in range(0, len(value), _PIECE))


def _size_in_string(text: bytes) -> int:
    """Count the bytes of text within a string of JSON. To escape it would take ten times as long."""
    in_two, in_six = (len(text) - len(text.translate(None, escaped)) for escaped in (_IN_TWO, _IN_SIX))
    return len(text) + in_two + 5 * in_six


def checked_data(data: object, limit: SizeLimit, *, decoded: bool = False) -> tuple[Any, str]:
    """Return an emitter's data as the log has it, and the first problem in one line, "" if there is none.

    Members that are not JSON are left out. The others are kept. ``decoded``: it came as JSON, and is looked at once.
    """
    if data is None:
        return None, ""
    if type(data) is dict:
        if decoded:
            with contextlib.suppress(TypeError, ValueError):  # a transport that decoded nothing made it
                return limit.apply(data), ""
        try:
            text = encode(data, "data")
        except NotJson:
            pass  # the members are looked at one by one below
        else:
            return msgspec.Raw(text) if len(text) <= limit.size else limit.apply(data), ""
    elif not isinstance(data, Mapping):
        return None, f"data: expected an object, got {type(data).__name__}"
    good: dict[str, Any] = {}
    fault = ""
    for key, value in data.items():
        try:
            encode({key: value}, "data")
            good[key] = value
        except NotJson as error:
            fault = fault or str(error)
    return limit.apply(good), fault
