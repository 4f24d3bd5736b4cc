"""The messages of the protocol, section 2, as they cross any transport.

Owns their shapes, in and out. It does no I/O and knows no framing.
"""

from __future__ import annotations

import asyncio
import functools
import re
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET, structs

from .errors import Internal, KernelError
from .json import LARGE, NotJson, encode, encode_checked, finish, finish_in_turns
from .weight import MESSAGE_BYTES, SHORT, look, look_at_utf8, needs_look


class ErrorBody(msgspec.Struct):
    """``error`` of a failed reply (section 5)."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class SystemCall(msgspec.Struct):
    """One system call that a module asks for (section 8). Without ``args``, or with ``null``, it has none."""

    name: str
    args: dict[str, Any] | None = {}


class Pending(msgspec.Struct):
    """``pending`` of a reply: the system calls that a module asks for, and a state that comes back unchanged."""

    syscalls: list[SystemCall]
    state: msgspec.Raw = msgspec.Raw(b"null")


class Message(msgspec.Struct):
    """One message of a module: a chunk, or a reply in one of the three shapes of section 2. Unknown fields are ignored.

    A field that a message does not have is ``None``, as one that is null. ``chunk`` and ``result`` are ``UNSET`` then,
    since they may be null. ``id`` belongs to the framing of STDIO (section 3). ``size`` is the length of the JSON text
    in bytes, without that of ``events``: ``decode_message`` sets it, and the sender cannot.
    """

    id: str | None = None
    chunk: Any = UNSET
    ok: bool | None = None
    result: Any = UNSET
    error: ErrorBody | None = None
    pending: Pending | None = None
    events: list[dict[str, Any]] | None = None
    size: Any = 0

    def is_reply(self) -> bool:
        """Tell whether this is exactly one of the three shapes of a reply."""
        if self.ok is True:
            return self.result is not UNSET and self.error is None and self.pending is None
        if self.result is not UNSET and self.result is not None:
            return False
        if self.ok is False:
            return self.error is not None and self.pending is None
        return self.pending is not None and self.error is None


class _Events(msgspec.Struct):
    """The events of a message, as their sender wrote them."""

    events: msgspec.Raw = msgspec.Raw(b"")


@functools.cache  # made for the first message: 0.4 ms that would slow down the import
def _decoder() -> msgspec.json.Decoder[Message]:
    return msgspec.json.Decoder(Message)


@functools.cache
def _events_decoder() -> msgspec.json.Decoder[_Events]:
    return msgspec.json.Decoder(_Events)


def decode_message(text: bytes, limit: int = MESSAGE_BYTES) -> Message:
    """Read one message, or raise ``NotJson`` with one line: not JSON, or not the shape of a message.

    It is refused for its depth and for what its values would take as by ``decode``.
    """
    if type(text) is not bytes:
        text = bytes(text)  # the parts that stay undecoded refer to it
    try:
        if len(text) > SHORT and needs_look(text, limit):
            finish(look(text, limit))
        if not text.isascii():  # the decoder checks no UTF-8 in parts that it skips or leaves undecoded
            finish(look_at_utf8(text))
        message = _read(text)
        return message if message.events is None else _without_events(message, text)
    except ValueError as error:
        raise NotJson(str(error)) from None


async def decode_message_large(text: bytes, limit: int = MESSAGE_BYTES) -> Message:
    """Read one message as ``decode_message`` does, but look at it in slices, and let other tasks run between them."""
    try:
        if needs_look(text, limit):
            await finish_in_turns(look(text, limit))
        if not text.isascii():
            await finish_in_turns(look_at_utf8(text))
        message = _read(text)
        await asyncio.sleep(0)
        return _without_events(message, text)
    except ValueError as error:
        raise NotJson(str(error)) from None


def _read(text: bytes) -> Message:
    message = _decoder().decode(text)
    message.size = len(text)
    if message.chunk is not UNSET:
        _tell_chunk(message)
    if message.pending is not None:
        message.pending.state = message.pending.state.copy()  # as decoded, it keeps all of the text
    return message


def _tell_chunk(message: Message) -> None:
    """Tell a chunk from a reply in which it is null. Refuse what is both: one would be lost, or waited for."""
    others = message.ok, message.result, message.error, message.pending
    if all(each is None or each is UNSET for each in others):
        message.result = UNSET
    elif message.chunk is None:
        message.chunk = UNSET
    else:
        raise ValueError("expected a chunk or a reply, got both in one message")


def _without_events(message: Message, text: bytes) -> Message:
    """Take the events from the size of a message."""
    if message.events is not None:
        message.size -= len(_events_decoder().decode(text).events) + len(b',"events":')
    return message


def encode_message(message: Message) -> bytes:
    """Encode one message as a module writes it, without ``size``. Raises ``NotJson`` with the path of the problem."""
    parts = {name: value for name in ("id", "ok", "events") if (value := getattr(message, name)) is not None}
    parts |= {name: value for name in ("chunk", "result") if (value := getattr(message, name)) is not UNSET}
    if message.error is not None:
        body = structs.asdict(message.error)
        parts["error"] = {name: value for name, value in body.items() if value is not None}
    told = {name: msgspec.Raw(encode(parts[name], name)) for name in _WRITTEN if name in parts}
    if message.pending is not None:
        calls = [{"name": call.name, "args": call.args or {}} for call in message.pending.syscalls]
        syscalls = msgspec.Raw(encode(calls, "pending.syscalls"))
        told["pending"] = msgspec.Raw(encode_checked({"syscalls": syscalls, "state": message.pending.state}))
    return encode_checked(told)


def result_of(message: Message, who: str) -> Any:
    """Give a reply's result, raise its error, or raise ``internal`` if it is none of the three shapes."""
    result = message.result
    if message.ok is True and result is not UNSET and message.error is None and message.pending is None:
        return result
    if not message.is_reply():
        raise Internal(
            f"{who} broke its contract: the reply is none of the three shapes of section 2: it has {_parts(message)}"
        )
    if message.error is not None:
        error = _error_of(message.error, int(message.size), who)
        error.replied = True
        raise error
    raise Internal(f"{who} answered pending where no system calls are made")


def _parts(message: Message) -> str:
    """Name what of a reply there is."""
    ok = "" if message.ok is None else f"ok {str(message.ok).lower()}"
    parts = [name for name in ("result", "error", "pending") if getattr(message, name) not in (UNSET, None)]
    return ", ".join([ok, *parts] if ok else parts) or "neither ok nor pending"


def _error_of(error: ErrorBody, size: int, who: str) -> KernelError:
    """Make the error that a module replied with, without what only the kernel may say. Whatever is too large is cut."""
    code, message, told = error.code, error.message, error.details or {}
    if len(message) > _MESSAGE_MAX:
        message = f"{message[: _MESSAGE_MAX - 1]}…"
    own = {name: value for name, value in islice(told.items(), _DETAILS_MAX) if name not in _KERNEL_DETAILS}
    if len(own) < len(told):
        own["claimed"] = {name: told[name] for name in _KERNEL_DETAILS if name in told}
    details = _small(own, size - len(error.message) - len(code))
    if code in _KERNEL_CODES:
        return Internal(f"{_broke(who)} with the code {code!r}, which is the kernel's own: {message}", details=details)
    if not re.fullmatch(_CODE, code):
        return Internal(f"{_broke(who)} with a code that is not like {_CODE}: {message}", details=details)
    return KernelError.from_body(code, message, details)


def _small(details: dict[str, Any], at_most: int) -> dict[str, Any]:
    """Give details if they are small. To encode those of a large message for their size would hold the event loop."""
    size = at_most if at_most > LARGE else len(encode_checked(details))
    return details if size <= _DETAILS_BYTES else {"$omitted": size}


def _broke(who: str) -> str:
    return f"{who} broke its contract: it replied"


_WRITTEN = ("id", "ok", "chunk", "result", "events", "error")  # in this order
_CODE = "[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}"  # of ASCII: it is compared, sorted and counted
_MESSAGE_MAX = 8192  # characters
_DETAILS_MAX = 256  # members
_DETAILS_BYTES = 64 * 1024  # of JSON
_KERNEL_CODES = ("oom", "budget_exceeded", "unreachable")
_KERNEL_DETAILS = ("module", "stderr", "exit_code", "signal", "pid", "causes", "noise", "claimed")


def result_size(message: Message) -> int:
    """Return the size of a reply's result, in bytes of JSON. The sender's spaces count too."""
    rest = {name: value for name in ("id", "ok") if (value := getattr(message, name)) is not None}
    frame = len(encode_checked({**rest, "result": 0})) - 1
    return max(0, int(message.size) - frame)
