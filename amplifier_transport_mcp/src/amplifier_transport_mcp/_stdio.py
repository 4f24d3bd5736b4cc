"""A server as a child process, for the SDK's client: MCP's stdio transport, on a child process of the stdio transport.

Owns lines as messages, and what is wrong with them. The SDK's own transport is not used: invalid UTF-8 ends it, a
server's children survive it, and a line of 32 MB takes it seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import mcp_types as types
from mcp.shared.message import SessionMessage

from amplifier_core import Timeout
from amplifier_core.hookspecs import NotJson, decode, decode_large
from amplifier_transport_stdio import find_ids

from ._codes import broke_contract
from ._correlator import SILENCE_SECONDS
from ._messages import failed, may_be_reply, read_message
from ._pace import REQUEST
from ._streams import IncomingStream, OutgoingStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core import KernelError
    from amplifier_transport_stdio import Launcher

    from ._correlator import Correlator

_QUEUED = 64  # messages that the SDK has not taken, before no more are read
_TURN = 16  # messages that it takes before others get a turn
_UNREAD = 1024 * 1024  # bytes of answers that the server does not read


class StdioStreams:
    """A process, and the streams by which the SDK's client talks to it. ``ended`` is called with the cause, once."""

    def __init__(self, launcher: Launcher, correlator: Correlator, ended: Callable[[KernelError], None]) -> None:
        self._correlator = correlator
        self._ended = ended
        self._incoming: asyncio.Queue[SessionMessage | None] = asyncio.Queue()  # None wakes the reader at the end
        self._taken = 0
        self._over = False
        self._unread = 0
        self._holds: set[str] = set()  # why nothing is read from the server
        self._asked = False
        self.child = launcher.start(self)
        self._patience = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._answer_first)

    @property
    def stale(self) -> bool:
        """Whether the next request needs another process."""
        return not self.child.usable

    @property
    def read_question(self) -> bool:
        """Whether the server has read the first question, as far as can be told."""
        return self._asked and not self.child.unread

    async def __aenter__(self) -> tuple[IncomingStream, OutgoingStream]:
        """Give the streams."""
        return IncomingStream(self._receive), OutgoingStream(self._send)

    async def __aexit__(self, *_: object) -> None:
        """Leave the process to its owner."""

    async def _receive(self) -> SessionMessage:
        self._taken += 1
        if self._taken % _TURN == 0:
            await asyncio.sleep(0)
        await self._correlator.room(self._incoming.qsize)
        if self._incoming.empty():
            self._let_go("queue")
        message = await self._incoming.get()
        if self._over or message is None:
            raise StopAsyncIteration
        return message

    async def _send(self, item: SessionMessage) -> None:
        """Write one message. Raises ``BrokenPipeError`` for a request that the process cannot read."""
        if self._over:
            return
        message = item.message
        self._correlator.on_send(message)
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        self._check_unread(message, len(line))
        try:
            self.child.write(line, now=True)
        except BrokenPipeError:  # it ended unnoticed, or closed its stdin: the exit follows, and has the cause
            self.child.kill()
            if isinstance(message, types.JSONRPCRequest):
                raise
        else:
            self._asked = True

    def _answer_first(self) -> None:
        """Answer the first question in place of a server that is silent: it may wait to be greeted as before 2026."""
        if (request_id := self._correlator.asks_first()) is not None:
            why = f"the server did not answer its first question within {SILENCE_SECONDS:g} s"
            self._put(failed(request_id, self._correlator.keep_error(Timeout(why))))

    # What the process calls.

    def on_end(self, error: KernelError | None) -> None:
        """Fail what is in flight, and what is still sent; the first error stands."""
        self._patience.cancel()
        if error is not None and not self._over:
            self._over = True
            self._incoming.put_nowait(None)
            self._correlator.forget_asked()
            self._ended(error)

    def on_line(self, line: bytes) -> None:
        """Take one message, or what is none."""
        try:
            value = decode(line, self.child.limit)
        except NotJson as error:
            self._on_broken_line(line, str(error))
        else:
            self._take(line, value)

    async def on_large_line(self, line: bytes) -> None:
        """Take one message that is large, and let others run meanwhile."""
        try:
            value = await decode_large(line, self.child.limit)
        except NotJson as error:
            self._on_broken_line(line, str(error))
        else:
            self._take(line, value)

    def _take(self, line: bytes, value: object) -> None:
        """Take one message, or JSON that is none."""
        try:
            message = read_message(value)
        except ValueError as error:
            self._on_broken_line(line, str(error), is_reply=may_be_reply(value))
            return
        if isinstance(message, types.JSONRPCResponse) and (call := self._correlator.call(message.id)) is not None:
            call.size = len(line)
            self.child.answered = True
        if not self._correlator.awaits(message):
            self._slow_down(len(line), REQUEST if isinstance(message, types.JSONRPCRequest) else 1)
        try:
            shown = self._correlator.on_receive(message, len(line))
        except ValueError as error:
            self._on_broken_line(line, str(error), is_reply=may_be_reply(value))
        else:
            self._put(shown)

    def _put(self, message: types.JSONRPCMessage | None) -> None:
        if message is not None:
            self._incoming.put_nowait(SessionMessage(message))
        if self._incoming.qsize() > _QUEUED:
            self._hold("queue")

    def _on_broken_line(self, line: bytes, why: str, *, is_reply: bool = False) -> None:
        """Fail the requests that a broken line answers; a line that answers none is noise.

        What can only be a reply, and names no request, answers the client's own one, as in the handshake.
        """
        self._slow_down(len(line), 1)
        answered = self._correlator.waiting(find_ids(line, alone=self._correlator.waits_for_one))
        if not answered and is_reply:
            answered = self._correlator.own_request()
        if not answered:
            self.child.count_noise(line)
        for request_id in answered:
            fault = self._correlator.keep_error(self.child.broke_contract(line, why))
            self._put(failed(request_id, fault))

    # How fast the server may be.

    def _slow_down(self, size: int, cost: int) -> None:
        """Let a server that sends too much unasked wait."""
        if (seconds := self._correlator.pace.spend(size, cost)) and "pace" not in self._holds:
            self._hold("pace")
            asyncio.get_running_loop().call_later(seconds, self._let_go, "pace")

    def _hold(self, why: str) -> None:
        self._holds.add(why)
        self.child.pause()

    def _let_go(self, why: str) -> None:
        self._holds.discard(why)
        (self.child.pause if self._holds else self.child.resume)()

    def _check_unread(self, message: types.JSONRPCMessage, size: int) -> None:
        """Kill a server that asks, and does not read the answers."""
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            self._unread = self._unread if self.child.unsent else 0
            if self._unread > _UNREAD:
                why = f"the server did not read {_UNREAD} bytes of answers to its requests"
                self.child.kill(broke_contract("its requests", why))
            self._unread += size
