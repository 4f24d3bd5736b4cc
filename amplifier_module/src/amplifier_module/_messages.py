"""The messages of the protocol, section 2, as a module reads and writes them.

Owns their shapes and their bounds. It does no I/O.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ._errors import ModuleError, error_body

_T = TypeVar("_T")
_UNFIT = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)  # msgspec's own are no ValueErrors in 0.19

MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest message in either direction, in bytes, unless ``limits.message_bytes`` says otherwise."""

EVENTS_MAX = 1000
"""The most events of one reply."""


class Resume(msgspec.Struct):
    """``resume``: what a module goes on with after its system calls."""

    state: Raw = Raw(b"null")
    results: list[Raw] = []


class Invoke(msgspec.Struct):
    """The parameters of ``invoke``."""

    op: str
    args: Raw = Raw(b"{}")
    session_id: str | None = None
    request_id: str | None = None
    span_id: str | None = None
    deadline_ms: float | None = None
    resume: Resume | None = None


class Failure(msgspec.Struct):
    """``error`` of a system call that failed."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class Outcome(msgspec.Struct):
    """One of the results of a resumed ``invoke``."""

    ok: bool
    result: Any = None
    error: Failure | None = None


def read(text: bytes | Raw, kind: type[_T], name: str) -> _T:
    """Read JSON as a type. Raises ``ModuleError`` ``bad_request`` with the path of the problem, below ``name``."""
    try:
        return msgspec.json.decode(text, type=kind)
    except _UNFIT as error:
        where, what = _problem(error, name)
        raise ModuleError("bad_request", f"{where}: {what}", {"path": where}) from None


def _problem(error: Exception, name: str) -> tuple[str, str]:
    """Split what msgspec says into the path, with its own name for the root, and the problem."""
    what, _, path = str(error).partition(" - at `$")
    where = name + path.rstrip("`")
    for start, told in (("Object missing required field `", "nothing"), ("Object contains unknown field `", "")):
        if what.startswith(start):
            where, what = f"{where}.{what[len(start) : -1]}", _expected(told)
    what = what if what.startswith("JSON") else f"{what[:1].lower()}{what[1:]}"
    return where, what.replace("`", "")


def _expected(told: str) -> str:
    return f"expected a value, got {told}" if told else "there is no such field"


def encode(value: object, what: str, limit: int = MESSAGE_BYTES) -> bytes:
    """Write a value as JSON. Raises ``ModuleError`` ``internal`` if JSON has no word for it, or it is too large."""
    try:
        text = msgspec.json.encode(value)
        if b"null" in text and _has_nan(msgspec.to_builtins(value)):  # msgspec writes NaN and Infinity as null
            raise ValueError("NaN and Infinity are not JSON")
    except _UNFIT as error:
        raise ModuleError("internal", f"{what}: expected JSON: {error}") from error
    if len(text) > limit:
        raise ModuleError("internal", f"{what}: expected at most {limit:,} bytes, got {len(text):,}")
    return text


def _has_nan(value: object) -> bool:
    stack = [value]
    while stack:
        match stack.pop():
            case float() as number if not math.isfinite(number):
                return True
            case dict() as members:
                stack += members.values()
            case list() as items:
                stack += items
    return False


def success(result: bytes, events: list[Any]) -> bytes:
    """Make the reply with a result, given as JSON."""
    return _with_events(b'{"ok":true,"result":%b' % result, events)


def failure(error: BaseException, op: str, events: list[Any] | None = None) -> bytes:
    """Make the reply that says what went wrong. ``details`` that are no JSON are left out."""
    body = error_body(error, op)
    try:
        text = encode(body, "error")
    except ModuleError as unfit:
        text = encode({**body, "details": {"omitted": unfit.message[:200]}}, "error")
    return _with_events(b'{"ok":false,"error":%b' % text, events or [])


def pending(calls: list[bytes], state: bytes, events: list[Any]) -> bytes:
    """Make the reply that asks for system calls, each given as JSON."""
    return _with_events(b'{"pending":{"syscalls":[%b],"state":%b}' % (b",".join(calls), state), events)


def _with_events(text: bytes, events: list[Any]) -> bytes:
    return b'%b,"events":[%b]}' % (text, b",".join(events)) if events else text + b"}"
