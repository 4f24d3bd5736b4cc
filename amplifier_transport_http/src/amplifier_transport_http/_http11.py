"""One HTTP/1.1 connection: h11's state machine, and what the event loop tells of its socket.

Owns the bytes of one exchange after the other. It does not know what a body means, nor when to connect.

Why not httpcore's, which httpx would bring: before it uses a kept connection, it asks whether the socket is readable,
but looks neither into h11's buffer nor into anyio's queue. A response that nobody asked for waits there, and answers
the next request. It also costs twice to six times as much.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

import h11
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_SECONDS = 4.0
"""Node and uvicorn close a connection that was idle for 5 s: a request must not meet that on its way."""

_ENOUGH = 256 * 1024
"""What may wait here to be read, in bytes: above, the server is held back."""


class Http11(asyncio.Protocol):
    """One connection, for one exchange at a time. It lists itself in ``open`` as long as it has a socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_: set[Http11]) -> None:
        self._loop = loop
        self._open = open_
        self._h11 = h11.Connection(h11.CLIENT)
        self._waiter: asyncio.Future[None] | None = None
        self._idle_since: float | None = loop.time()
        self._unread = 0
        self._end: httpx.TransportError | None = None
        self.closed: asyncio.Future[None] = loop.create_future()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._readable = _watch(transport.get_extra_info("socket").fileno())
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Pass on what was asked for. Nobody reads an idle connection: what arrives there ends it."""
        if self._idle_since is not None:
            self.abort("the server sent what nobody had asked for")
            return
        self._h11.receive_data(data)
        self._unread += len(data)
        if self._unread > _ENOUGH:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note that nothing follows: the end of some bodies, and the end of the connection."""
        self._end = self._end or httpx.RemoteProtocolError("the server hung up before the end of its answer")
        self._h11.receive_data(b"")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Note why the socket is gone, unless something else ended the connection before."""
        if self._end is None:
            self._end = httpx.ReadError(f"the connection broke: {error}")
            self._end.__cause__ = error
        self._open.discard(self)
        self.closed.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What an exchange calls.

    def send(self, request: httpx.Request, body: bytes) -> None:
        """Write one request. It is buffered if the server does not read: waiting for the answer bounds that too."""
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        self._idle_since = None
        parts = [self._h11.send(event) or b"" for event in (head, h11.Data(data=body), h11.EndOfMessage())]
        self._transport.write(b"".join(parts))

    async def next_event(self) -> h11.Event:
        """Give the next part of the answer. Raises ``httpx.TransportError``."""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise self._end or httpx.RemoteProtocolError(f"the answer is not HTTP/1.1: {error}") from error
            if isinstance(event, h11.Event):
                return event
            if self._end is not None:
                raise self._end
            self._all_is_read()
            self._waiter = self._loop.create_future()
            await self._waiter

    def renew(self) -> bool:
        """Make the connection ready for another exchange, or close it and tell so.

        Whatever follows a whole answer belongs to nobody: then the connection must not live on.
        """
        ends = (self._h11.our_state, self._h11.their_state)
        if ends != (h11.DONE, h11.DONE) or self._h11.trailing_data[0] or self._transport.get_write_buffer_size():
            self.abort("the exchange is over")
        if self._end is not None:
            return False
        self._all_is_read()
        self._h11.start_next_cycle()
        self._idle_since = self._loop.time()
        return True

    def _all_is_read(self) -> None:
        self._unread = 0
        self._transport.resume_reading()  # does nothing unless it was paused

    def expired(self) -> bool:
        """Tell whether the connection was idle for too long, or is closed."""
        too_long = self._idle_since is not None and self._loop.time() - self._idle_since > _IDLE_SECONDS
        return too_long or self._end is not None

    def usable(self) -> bool:
        """Tell whether an idle connection can carry a request, as far as one can know.

        The loop may not have had a turn since the server closed it, so the socket itself is asked. A close still on
        its way is met by the request, which fails as ``unreachable``: to send a POST again is not for a kernel.
        """
        return not self.expired() and not self._readable(0)

    def abort(self, why: str) -> None:
        """Close the socket at once. An exchange that waits fails."""
        self._end = self._end or httpx.ReadError(why)
        self._transport.abort()
        self._wake()


def _watch(descriptor: int) -> Callable[[int], Any]:
    """Make what tells whether a socket can be read: 1 µs a call, where each ``select`` costs 3."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows, whose loop reads all the time and has seen it already
        return lambda _: False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll
