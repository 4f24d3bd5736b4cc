"""One HTTP/1.1 connection: llhttp's parser, between the event loop's socket and the exchanges.

Owns the bytes of one exchange after the other. It does not know what a body means, nor when to connect.

Why not httpcore's connections, which httpx would bring: before httpcore uses a kept connection, it asks whether the
socket is readable, but looks neither into h11's buffer nor into anyio's queue. A response that no request asked for
waits there, and answers the next request. httpx's client costs ten times as much, thirty times at 32 requests at once.
"""

from __future__ import annotations

import asyncio
import secrets
import select
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools
import httpx

from amplifier_core.hookspecs import close_socket, watch_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IDLE_SECONDS = 4.0
"""Node and uvicorn close a connection that was idle for 5 s, and a request must not cross with that."""

_UNREAD_MAX = 256 * 1024
"""Bytes of a body that may wait here to be read. With more, reading from the socket pauses."""

_PART_COST = 100
"""Bytes that a part of a body takes beyond its own, in what may wait."""

_HEAD_MAX = 64 * 1024
"""Bytes in a row that may be no part of a body: a head, informational heads before it, trailers."""

_LINE_MAX = 16 * 1024
"""Bytes of one header's name and value."""

_HEADERS_MAX = 100
"""Headers of a response, with its trailers."""

_READ = 32 * 1024
"""Bytes read at once, into a buffer that a connection keeps: asyncio's own 256 KiB are mapped anew for each read."""

_REQUEST_ID = b"x-request-id"
_UNBOUND = "HTTP %d without the x-request-id of the request, on a kept connection: it may answer another request"

_INFORMATIONAL, _SWITCHING, _SUCCESS = 100, 101, 200


class Http11(asyncio.BufferedProtocol):
    """One connection, for one exchange at a time. It is in ``open_`` as long as it has a socket.

    If it is to ``bind`` responses, each request has an id of its own, and the connection is kept for another request
    only while the server repeats the ids: nothing else tells a late second response from the one that is waited for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, open_: set[Http11], *, bind: bool) -> None:
        self._loop = loop
        self._bind = bind
        self._request_id = b""
        self._is_kept = False
        self._open = open_
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = memoryview(bytearray(_READ))
        self._waiter: asyncio.Future[None] | None = None
        self._idle_since: float | None = loop.time()
        self._end: httpx.TransportError | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._reset()

    def _reset(self) -> None:
        """Forget the last exchange."""
        self.status: int = 0  # until the head is complete
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self._parts: deque[bytes] = deque()
        self._read: list[bytes] = []  # the parts in what is read just now
        self._unread = 0
        self._since_body = 0
        self._header_count = 0
        self._complete = self._keep_alive = self._is_bound = self._unasked = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._socket = transport.get_extra_info("socket")
        self._readable = _watch(self._socket.fileno())
        self._open.add(self)
        watch_forks(self)

    def after_fork(self) -> None:
        """Close the child's copy of the socket, or the server would see no end of the connection."""
        if self in self._open:
            close_socket(self._socket)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read. On an idle connection no request asked for it, so it ends the connection."""
        if self._idle_since is not None:
            self.abort("the server sent data that no request asked for")
            return
        self._since_body += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error))
        self._keep_read()
        if self._since_body > _HEAD_MAX:
            self._fail(f"more than {_HEAD_MAX} bytes of headers")
        if self._unread > _UNREAD_MAX:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """End the connection, and a body that has no other end."""
        if self.status and not _is_framed(self.headers):
            self._complete = True
        self._end = self._end or httpx.RemoteProtocolError(
            "the server closed the connection before the end of its answer"
        )
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Note why the socket is gone, unless the connection has ended before."""
        if self._end is None:
            self._end = httpx.ReadError(f"the connection broke: {error}")
            self._end.__cause__ = error
        self._open.discard(self)
        self.closed.set_result(None)
        self._wake()

    def _keep_read(self) -> None:
        """Keep what was read of a body, as one part: thousands of chunks may have been in it."""
        if self._read:
            part = b"".join(self._read)
            self._read.clear()
            self._parts.append(part)
            self._unread += len(part) + _PART_COST

    def _fail(self, why: str) -> None:
        """End the connection for data that is no response; a complete response before it still counts."""
        self._unasked = True
        self.abort(f"the answer is not HTTP/1.1: {why}", httpx.RemoteProtocolError)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Note a second response: no request asked for it."""
        self._unasked = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped, and counted."""
        self._header_count += 1
        if self._header_count > _HEADERS_MAX:
            self._fail(f"more than {_HEADERS_MAX} headers")
        elif len(name) + len(value) > _LINE_MAX:
            self._fail(f"a header of more than {_LINE_MAX} bytes")
        elif not self.status:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Take the status, unless the head is an informational one."""
        if self._complete or self._end is not None:
            return
        status = self._parser.get_status_code()
        if status == _SWITCHING:
            self._fail("it switches to another protocol")
        elif _INFORMATIONAL <= status < _SUCCESS:
            self.headers.clear()
            self._header_count = 0
        else:
            self._take_status(status)

    def _take_status(self, status: int) -> None:
        """Take the head of the response, unless it may be that of another request."""
        told = [value for name, value in self.headers if name == _REQUEST_ID]
        self._is_bound = not self._bind or told == [self._request_id]
        if self._is_kept and not self._is_bound:
            self.abort(_UNBOUND % status, httpx.RemoteProtocolError)
        else:
            self.status = status

    def on_body(self, part: bytes) -> None:
        if not self._complete:
            self._read.append(part)
            self._since_body = 0

    def on_message_complete(self) -> None:
        if self.status and not self._complete and self._end is None:
            self._complete, self._keep_alive = True, self._parser.should_keep_alive()

    # Called for an exchange.

    def send(self, head: bytes, body: bytes) -> None:
        """Write one request. It is buffered while the server does not read; waiting for the response bounds that."""
        self._idle_since = None
        if self._bind:
            self._request_id = secrets.token_hex(8).encode()  # no id tells the next one
            self._transport.write(b"%bx-request-id: %b\r\n\r\n%b" % (head, self._request_id, body))
        else:
            self._transport.write(b"%b\r\n%b" % (head, body))

    async def head(self) -> None:
        """Wait until ``status`` and ``headers`` are there. Raises ``httpx.TransportError``."""
        while not self.status:
            await self._more()

    def whole(self) -> bytes | None:
        """Give the whole body if it has come in one read. ``None``: it is still to be read, part by part."""
        if not self._complete or len(self._parts) > 1:
            return None
        return self._parts.popleft() if self._parts else b""

    async def part(self) -> bytes:
        """Give the next part of the body, or ``b""`` at its end. Raises ``httpx.TransportError``."""
        while not self._parts:
            if self._complete:
                return b""
            await self._more()
        return self._parts.popleft()

    async def _more(self) -> None:
        if self._end is not None:
            raise self._end
        self._resume_reading()
        self._waiter = self._loop.create_future()
        await self._waiter

    def renew(self) -> bool:
        """Make the connection ready for another exchange, or else close it; tell whether it is ready.

        Data after a complete response would answer the next request, so it closes the connection. So does a response
        that is not bound to its request, since another one may follow.
        """
        may_go_on = self._keep_alive and self._is_bound and not self._unasked
        if not may_go_on or self._parts or self._transport.get_write_buffer_size():
            self.abort("the exchange is over")
        if self._end is not None:
            return False
        self._resume_reading()
        self._reset()
        self._is_kept = True
        self._idle_since = self._loop.time()
        return True

    def _resume_reading(self) -> None:
        self._unread = 0
        self._transport.resume_reading()  # does nothing unless it was paused

    def expired(self) -> bool:
        """Tell whether the connection was idle for too long, or is closed."""
        too_long = self._idle_since is not None and self._loop.time() - self._idle_since > _IDLE_SECONDS
        return too_long or self._end is not None

    def usable(self) -> bool:
        """Tell whether an idle connection can carry a request, as far as one can know.

        The socket itself is asked, since the server may have closed it after the loop's last turn. If the close is
        still in transit, the request fails as ``unreachable``: a kernel must not send a POST twice.
        """
        return not self.expired() and not self._readable(0)

    def abort(self, why: str, error: type[httpx.TransportError] = httpx.ReadError) -> None:
        """Close the socket at once. An exchange that waits fails, unless all that it waits for has come."""
        self._end = self._end or error(why)
        self._transport.abort()
        self._wake()


def request_head(method: str, url: httpx.URL, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write the head of a request, without the blank line at its end. Raises ``httpx.LocalProtocolError``."""
    head = b"%b %b HTTP/1.1\r\n" % (method.encode(), url.raw_path)
    head += b"".join([b"%b: %b\r\n" % header for header in headers])
    if not head.count(b"\r") == head.count(b"\n") == len(headers) + 1:
        raise httpx.LocalProtocolError("a header has the end of a line in it")
    return head


def _is_framed(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether the headers say where the body ends; otherwise it ends with the connection."""
    values = {name: value.lower() for name, value in headers}
    coding = values.get(b"transfer-encoding")
    return b"content-length" in values if coding is None else coding.endswith(b"chunked")


def _watch(descriptor: int) -> Callable[[int], Any]:
    """Make a function that tells whether a socket can be read: it takes 1 µs, where each ``select`` takes 3."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows, whose loop reads all the time and has seen it already
        return lambda _: False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll
