"""One HTTP/1.1 connection: llhttp's parser, and what the event loop tells of its socket.

Owns the bytes of one exchange after the other. It does not know what a body means, nor when to connect.

Why not httpcore's, which httpx would bring: before it uses a kept connection, it asks whether the socket is readable,
but looks neither into h11's buffer nor into anyio's queue. A response that nobody asked for waits there, and answers
the next request. With its client, httpx's whole way costs ten times as much, and thirty times at 32 requests at once.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_SECONDS = 4.0
"""Node and uvicorn close a connection that was idle for 5 s: a request must not meet that on its way."""

_ENOUGH = 256 * 1024
"""What may wait here to be read, in bytes: above, the server is held back."""

_HEAD_MAX = 64 * 1024
"""Bytes that may come and be no part of a body: a head, informational ones before it, trailers."""

_INFORMATIONAL, _SWITCHING, _SUCCESS = 100, 101, 200


_READ = 32 * 1024
"""Bytes read at once, into a buffer that a connection keeps: asyncio's own 256 KiB are mapped anew for each read."""


class Http11(asyncio.BufferedProtocol):
    """One connection, for one exchange at a time. It lists itself in ``open`` as long as it has a socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_: set[Http11]) -> None:
        self._loop = loop
        self._open = open_
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = memoryview(bytearray(_READ))
        self._waiter: asyncio.Future[None] | None = None
        self._idle_since: float | None = loop.time()
        self._end: httpx.TransportError | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._begin()

    def _begin(self) -> None:
        """Forget the last exchange."""
        self.status = 0  # until the head has come whole
        self.headers: list[tuple[bytes, bytes]] = []
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._no_body = 0
        self._whole = self._keeps = self._surplus = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        self._transport = cast("asyncio.Transport", transport)
        self._readable = _watch(transport.get_extra_info("socket").fileno())
        self._open.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - what is there will do
        """Say where to put what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was asked for. Nobody reads an idle connection: what arrives there ends it."""
        if self._idle_since is not None:
            self.abort("the server sent what nobody had asked for")
            return
        self._no_body += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error))
        if self._no_body > _HEAD_MAX:
            self._fail(f"more than {_HEAD_MAX} bytes of headers")
        if self._unread > _ENOUGH:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note that nothing follows: the end of some bodies, and the end of the connection."""
        if self.status and not _is_framed(self.headers):
            self._whole = True
        self._end = self._end or httpx.RemoteProtocolError("the server hung up before the end of its answer")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Note why the socket is gone, unless something else ended the connection before."""
        if self._end is None:
            self._end = httpx.ReadError(f"the connection broke: {error}")
            self._end.__cause__ = error
        self._open.discard(self)
        self.closed.set_result(None)
        self._wake()

    def _fail(self, why: str) -> None:
        """Note that what came is no answer, unless a whole one came before it."""
        self._surplus = True
        self._end = self._end or httpx.RemoteProtocolError(f"the answer is not HTTP/1.1: {why}")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Note a second answer: it belongs to nobody."""
        self._surplus = self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers say nothing that anybody asked for."""
        if not self.status:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Take the status, unless the head is an informational one."""
        if self._whole:
            return
        status = self._parser.get_status_code()
        if status == _SWITCHING:
            self._fail("it switches to another protocol")
        elif _INFORMATIONAL <= status < _SUCCESS:
            self.headers.clear()
        else:
            self.status = status

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if not self._whole:
            self._parts.append(part)
            self._unread += len(part)
            self._no_body = 0

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self.status and not self._whole:
            self._whole, self._keeps = True, self._parser.should_keep_alive()

    # What an exchange calls.

    def send(self, request: httpx.Request, body: bytes) -> None:
        """Write one request. It is buffered if the server does not read: waiting for the answer bounds that too."""
        headers = request.headers.raw
        if "content-length" not in request.headers:
            headers = [header for header in headers if header[0].lower() != b"transfer-encoding"]
            headers += [(b"content-length", b"%d" % len(body))] if body else []
        head = b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)
        head += b"".join([b"%b: %b\r\n" % header for header in headers])
        if not head.count(b"\r") == head.count(b"\n") == len(headers) + 1:
            raise httpx.LocalProtocolError("a header has the end of a line in it")
        self._idle_since = None
        self._transport.write(b"%b\r\n%b" % (head, body))

    async def head(self) -> None:
        """Wait until ``status`` and ``headers`` are there. Raises ``httpx.TransportError``."""
        while not self.status:
            await self._more()

    async def part(self) -> bytes:
        """Give the next part of the body; at its end there is none. Raises ``httpx.TransportError``."""
        while not self._parts:
            if self._whole:
                return b""
            await self._more()
        return self._parts.popleft()

    async def _more(self) -> None:
        if self._end is not None:
            raise self._end
        self._all_is_read()
        self._waiter = self._loop.create_future()
        await self._waiter

    def renew(self) -> bool:
        """Make the connection ready for another exchange, or close it and tell so.

        Whatever follows a whole answer belongs to nobody: then the connection must not live on.
        """
        if not self._keeps or self._surplus or self._parts or self._transport.get_write_buffer_size():
            self.abort("the exchange is over")
        if self._end is not None:
            return False
        self._all_is_read()
        self._begin()
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


def _is_framed(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether a body says itself where it ends; otherwise the end of the connection does."""
    values = {name.lower(): value.lower() for name, value in headers}
    coding = values.get(b"transfer-encoding")
    return b"content-length" in values if coding is None else coding.endswith(b"chunked")


def _watch(descriptor: int) -> Callable[[int], Any]:
    """Make what tells whether a socket can be read: 1 µs a call, where each ``select`` costs 3."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows, whose loop reads all the time and has seen it already
        return lambda _: False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll
