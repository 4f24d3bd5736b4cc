"""What a module in this process may know and do while it answers a request.

Owns the copies: whatever a module sends is written as JSON and read again, so that nobody shares its objects.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import Internal
from amplifier_core.hookspecs import UNSET, NotJson, decode_message, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Chunks


def write(value: object, what: str) -> bytes:
    """Write a value as strict JSON. Raises ``Internal`` with the path of what is none."""
    try:
        return encode(value, what)
    except NotJson as error:
        raise Internal(str(error)) from None


class Sender:
    """``await send(text)`` sends one ``{"chunk": …}``, JSON text, and waits while the reader is far behind."""

    def __init__(self, chunks: Chunks | None, limit: int) -> None:
        self.chunks = chunks
        self.given_up = False
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._full = False
        self._gone: asyncio.Future[None] = self._loop.create_future()

    async def __call__(self, text: bytes) -> None:
        self.put(text)
        await self.drain()

    def put(self, text: bytes) -> None:
        """Send one chunk without waiting. Raises ``Internal`` for what is none."""
        if self.chunks is None:
            return
        if len(text) > self._limit:
            raise Internal(f"chunk: expected at most {self._limit} bytes (limits.message_bytes), got {len(text)}")
        try:
            message = decode_message(text, self._limit)
        except NotJson as error:
            raise Internal(f"chunk: {error}") from None
        if message.chunk is UNSET:
            raise Internal("chunk: expected a message with a chunk")
        self._full = not self.chunks.put(message.chunk, message.size)

    def put_anywhere(self, text: bytes) -> None:
        """Send one chunk from any thread. Another thread than the loop's waits while the reader is far behind."""
        self.check()
        if threading.get_ident() == self._thread:
            self.put(text)
            return
        try:
            asyncio.run_coroutine_threadsafe(self(text), self._loop).result()
        except futures.CancelledError:
            raise asyncio.CancelledError from None

    async def drain(self) -> None:
        """Wait until the reader has room, or has given up. Raises ``asyncio.CancelledError`` then."""
        if self.chunks is not None and self._full:
            room = asyncio.ensure_future(self.chunks.room())
            try:
                await asyncio.wait((room, self._gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                room.cancel()
        self.check()

    def check(self) -> None:
        """Raise ``asyncio.CancelledError`` if the caller has given up."""
        if self.given_up:
            raise asyncio.CancelledError

    def give_up(self) -> None:
        """Note that the caller has given up."""
        self.given_up = True
        self._gone.cancel()


@attrs.frozen(eq=False)
class Context:
    """The invocation that ``invoke`` runs for. The kernel makes one; nobody else does."""

    session_id: str | None
    """The session of the invocation."""
    request_id: str | None
    """The request that the invocation is part of."""
    span_id: str | None
    """The invocation itself, in the tree of its request."""
    resume: Mapping[str, Any] | None
    """After a ``pending`` reply: its ``state``, and the ``results`` of its system calls (section 2)."""
    _deadline: float | None
    _sender: Sender
    _events: list[Any]

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline of the whole invocation, at least 0; ``None`` if there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up. A plain function that takes long looks at this from time to time."""
        return self._sender.given_up

    def check(self) -> None:
        """Raise ``asyncio.CancelledError`` if the caller has given up."""
        self._sender.check()

    def chunk(self, value: Any) -> None:
        """Send any JSON to the caller before the result. Raises ``asyncio.CancelledError`` if the caller has given up.

        In a plain function it waits while the reader is far behind; in an ``async`` one ``drain`` does.
        """
        self._sender.put_anywhere(b'{"chunk":%b}' % write(value, "chunk"))

    async def drain(self) -> None:
        """Wait while the reader of the chunks is far behind."""
        await self._sender.drain()

    def event(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Add an event to the reply; the kernel emits it in the module's name. It takes no capability."""
        self._events.append({"event": event, "data": dict(data or {})})

    def pending(self, calls: Sequence[Mapping[str, Any]], state: Any = None) -> Pending:
        """Ask for system calls: ``return context.pending([{"name": "context.get"}], state)``.

        ``invoke`` is called again, with the same arguments, and with ``resume``.
        """
        return Pending({"syscalls": [dict(call) for call in calls], "state": state})


@attrs.frozen(eq=False)
class Pending:
    """What ``invoke`` returns in place of a result to ask for system calls."""

    body: dict[str, Any]
