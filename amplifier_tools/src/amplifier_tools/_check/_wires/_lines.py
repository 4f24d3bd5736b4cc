"""The lines of a module's stdout: which request each belongs to, and what is wrong with it (protocol, section 3).

Owns that judgement. It reads no pipe, and does not look into what a reply says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core.hookspecs import NotJson, decode
from amplifier_transport_stdio import find_ids

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BOM", "Lines", "Waiting"]

BOM = b"\xef\xbb\xbf"
_PARTS_MAX = 64 * 1024  # bytes of lines that together may be one message
_SHOWN = 100  # characters of an id
_REPLY = ("ok", "result", "error", "pending")
_EXPLAINED = 0.5  # seconds that a request still waits when something else has come that was meant as its reply


@attrs.define(eq=False)
class Waiting:
    """A request that waits: ``reply`` becomes its message and line, or ``None`` if none comes any more."""

    reply: asyncio.Future[tuple[dict[str, Any], bytes] | None]
    excused: bool = False
    """Whether something came that explains why no reply comes."""

    def settle(self, reply: tuple[dict[str, Any], bytes] | None = None) -> None:
        """End the waiting, if it has not ended."""
        if not self.reply.done():
            self.reply.set_result(reply)


class Lines:
    """Takes lines in their order. ``broke(rule, problem, line=…)`` hears what is wrong with one."""

    def __init__(self, limit: int, broke: Callable[..., None]) -> None:
        self._limit = limit
        self._broke = broke
        self._parts: list[bytes] = []  # lines that are no JSON, one after the other
        self.waiting: dict[str, Waiting] = {}
        self._answered: set[str] = set()
        self._given_up: set[str] = set()
        self.cancels: set[str] = set()
        """The ids of cancels for what was not in flight."""
        self.cancelled: int = 0
        """How many cancels were sent, and not answered."""
        self._ended = False
        self._old: set[str] = set()
        self.late: bool = False
        """Whether the message that is taken now belongs to a request that was answered before the last ``begin``."""

    def expect(self, request_id: str) -> Waiting:
        """Note that a request was sent."""
        waiting = self.waiting[request_id] = Waiting(asyncio.get_running_loop().create_future())
        if self._ended:
            waiting.settle()
        return waiting

    def end(self) -> None:
        """Note that no line comes any more: whoever waits, or will wait, gets nothing."""
        self._ended = True
        self._excuse_all()
        for waiting in self.waiting.values():
            waiting.settle()

    def begin(self) -> None:
        """Note what has been answered so far."""
        self._old = set(self._answered)

    def give_up(self, request_id: str) -> None:
        """Note that a request waits no more: a reply that comes later is not held against the module again."""
        if self.waiting.pop(request_id, None) is not None:
            self._given_up.add(request_id)

    def take(self, line: bytes) -> None:
        """Take one line."""
        if line.startswith(BOM):
            self._broke("STDIO-06", "the line begins with a byte order mark", line=line)
            line = line[len(BOM) :]
        try:
            value = decode(line, self._limit)
        except NotJson as error:
            self._take_broken(line, str(error))
            return
        self.finish()
        if not isinstance(value, dict) or "method" in value or not value.keys() & {"id", "chunk", *_REPLY}:
            self._broke("STDIO-02", "a line of JSON that is no message", line=line)
        else:
            self._take_message(value, line)

    def finish(self) -> None:
        """Report the lines so far that are no JSON: no other one completes them."""
        parts, self._parts = self._parts, []
        for part in parts:
            self._broke("STDIO-01", "a line that is no JSON", line=part)
            self._excuse_all()

    def _take_broken(self, line: bytes, why: str) -> None:
        """Take a line that is no JSON: a reply that is broken, a part of one, or other text."""
        named = [each for each in find_ids(line, alone=False) if each in self.waiting]
        if named and not self._parts:
            self._broke("STDIO-08", f"the line is no strict JSON: {why}", line=line)
            for each in named:
                self._answered.add(each)
                self.waiting.pop(each).settle()
            return
        self._parts.append(line)
        if (whole := self._whole()) is not None:
            self._broke("STDIO-05", "a message is spread over several lines", line=b"".join(self._parts))
            self._parts.clear()
            self._take_message(whole, line)
        elif not self._parts[0].lstrip().startswith((b"{", b"[")) or sum(map(len, self._parts)) > _PARTS_MAX:
            self.finish()

    def _whole(self) -> dict[str, Any] | None:
        """Give the message that the parts are together, if they are one."""
        if len(self._parts) == 1 or not self._parts[-1].rstrip().endswith(b"}"):
            return None
        try:
            value = decode(b"".join(self._parts), self._limit)
        except NotJson:
            return None
        return value if isinstance(value, dict) and "id" in value else None

    def _take_message(self, message: dict[str, Any], line: bytes) -> None:
        is_reply = message.get("ok") is not None or message.get("pending") is not None
        is_chunk = message.get("chunk") is not None or ("chunk" in message and not is_reply)
        if is_chunk and (is_reply or message.keys() & _REPLY):
            self._broke("MSG-03", "the message has a chunk and a reply", line=line)
            is_chunk = False
        request_id = message.get("id")
        if not isinstance(request_id, str):
            self._take_nameless(request_id, line)
        elif request_id in self.waiting:
            if not is_chunk:
                self._answered.add(request_id)
                self.waiting.pop(request_id).settle((message, line))
        elif request_id not in self._given_up:
            self._take_stray(request_id, line, is_chunk=is_chunk)

    def _take_nameless(self, request_id: object, line: bytes) -> None:
        """Take a message whose id is no text."""
        if request_id is None and self.cancelled:
            self.cancelled -= 1
            self._broke("CANCEL-02", "a message without an id after a cancel", line=line)
        else:
            got = "no id" if request_id is None else f"an id that is no text, {request_id!r}"
            self._take_unknown(got, line)

    def _take_stray(self, request_id: str, line: bytes, *, is_chunk: bool) -> None:
        """Take a message that belongs to no request that waits."""
        self.late = request_id in self._old
        if is_chunk and request_id in self._answered:
            self._broke("STDIO-07", f"a chunk for {request_id!r}, which was answered before", line=line)
        elif request_id in self.cancels:
            self._broke("CANCEL-02", f"a message for the id {request_id!r}, which was not in flight", line=line)
        elif request_id in self._answered:
            self._broke("STDIO-04", f"another reply for {request_id!r}, which was answered before", line=line)
        else:
            self._take_unknown(f"the id {request_id!r}", line)
        self.late = False

    def _take_unknown(self, got: str, line: bytes) -> None:
        waits = f"{', '.join(list(self.waiting)[:3]) or 'no request'} waited"
        self._broke("STDIO-03", f"a message with {got[:_SHOWN]}, while {waits}", line=line)
        self._explain()

    def _explain(self) -> None:
        """Give the request that waits longest up soon: what came is likely to be meant as its reply."""
        for waiting in self.waiting.values():
            if not waiting.excused:
                waiting.excused = True
                asyncio.get_running_loop().call_later(_EXPLAINED, waiting.settle)
                return

    def _excuse_all(self) -> None:
        for waiting in self.waiting.values():
            waiting.excused = True
