"""The connections to one origin: as many as there are requests at once, kept for the next ones.

Owns connecting, handing out and closing, as an httpx transport. It follows no redirects and reads no bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

import httpx

from ._http11 import Http11, request_head

if TYPE_CHECKING:
    import ssl

_NEXT_ADDRESS_SECONDS = 0.25
"""Seconds that one address of a host may take before the next one is tried as well (RFC 8305)."""


class Pool(httpx.AsyncBaseTransport):
    """An httpx transport to the origin of one URL; ``tls`` is for https. It has no limit: a request never waits.

    A connection is kept for another request. If the content does not tell to which request a response belongs, use
    ``bind=True``: then each request has an ``x-request-id``, and only the connections of a server that repeats it are
    kept. Otherwise a second response to one request, sent late, could answer the next one.

    The connection that was used last is used next, so that surplus ones grow old and are closed. httpx's own pool looks
    through all its connections for each request: at 64 at once that alone costs more than all the rest.
    """

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext | None, *, bind: bool = False) -> None:
        self._bind = bind
        self._host = url.raw_host.decode()
        self._port = url.port or (443 if tls else 80)
        self._tls = tls
        # Only a name can have several addresses. asyncio's race between them is not free: cancelled in the turn of the
        # loop in which one wins, it leaves the socket to the garbage collector.
        self._next_address: float | None = _NEXT_ADDRESS_SECONDS
        with contextlib.suppress(ValueError):
            ip_address(self._host)
            self._next_address = None
        self._idle: deque[Http11] = deque()
        self._open: set[Http11] = set()
        self._connecting: dict[asyncio.Timeout, asyncio.Future[None]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of the response. Raises ``httpx.TransportError``."""
        content, headers = await request.aread(), request.headers.raw
        if "content-length" not in request.headers:
            headers = [header for header in headers if header[0].lower() != b"transfer-encoding"]
            headers += [(b"content-length", b"%d" % len(content))] if content else []
        exchange = await self.exchange(request_head(request.method, request.url, headers), content)
        return httpx.Response(exchange.status_code, headers=exchange.headers.raw, stream=exchange)

    async def exchange(self, head: bytes, content: bytes) -> Exchange:
        """Send a request and wait for the head of the response, without httpx's own objects.

        ``head`` is that of ``request_head``. Raises ``httpx.TransportError``.
        """
        if self._closed:
            raise httpx.ConnectError("the connections are closed")
        connection = self._take_idle() or await self._connect()
        try:
            connection.send(head, content)
            await connection.head()
        except BaseException:
            connection.abort("the request failed")
            raise
        return Exchange(self, connection)

    async def aclose(self) -> None:
        """Close every connection; requests in flight fail at once, also those that still connect. Idempotent."""
        if not self._closed:
            self._closed = True
            for attempt in self._connecting:
                attempt.reschedule(0)
        if self._connecting:
            await asyncio.wait(self._connecting.values())  # for a few turns of the loop
        for connection in list(self._open):
            connection.abort("the connections are closed")
        if self._open:
            await asyncio.wait([connection.closed for connection in self._open])

    def release(self, connection: Http11) -> None:
        """Take a connection back after its exchange, and close those that were idle for too long."""
        if connection.renew():
            self._idle.append(connection)
        while self._idle and self._idle[0].expired():
            self._idle.popleft().abort("idle for too long")

    def _take_idle(self) -> Http11 | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.abort("closed by the server, or idle for too long")
        return None

    async def _connect(self) -> Http11:
        loop = asyncio.get_running_loop()
        make = functools.partial(Http11, loop, self._open, bind=self._bind)
        attempt = asyncio.timeout(None)  # aclose() sets it to now: that ends the wait of another task
        self._connecting[attempt] = loop.create_future()
        try:
            async with attempt:
                _, connection = await loop.create_connection(
                    make, self._host, self._port, ssl=self._tls, happy_eyeballs_delay=self._next_address
                )
        except OSError as error:  # also a name that does not resolve, TLS, and the timeout above
            why = "the connections are closed" if self._closed else error
            raise httpx.ConnectError(f"cannot connect: {why}") from error
        finally:
            self._connecting.pop(attempt).set_result(None)
        return connection


class Headers:
    """The headers of a response: ``raw`` as pairs, with names in lower case. httpx's take 20 µs a response."""

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw: list[tuple[bytes, bytes]] = raw

    def get(self, key: str, default: str | None = None) -> str | None:
        """Give the value of a header by its name in lower case; those of several are joined with commas."""
        name = key.encode()
        values = [value for other, value in self.raw if other == name]
        return _text(b", ".join(values)) if values else default


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Exchange(httpx.AsyncByteStream):
    """One response, whose head is there, and its body as it arrives. Closing it early closes its connection."""

    def __init__(self, pool: Pool, connection: Http11) -> None:
        self._pool = pool
        self._connection: Http11 | None = connection
        self.status_code: int = connection.status
        self.headers: Headers = Headers(connection.headers)

    @property
    def stream(self) -> Self:
        """The body, under the name that a response of httpx has for it."""
        return self

    def whole(self) -> bytes | None:
        """Give the whole body if all of it is there, and the connection back. ``None``: it has to be read."""
        connection = self._connection
        body = None if connection is None else connection.whole()
        if connection is not None and body is not None:
            self._connection = None
            self._pool.release(connection)
        return body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise StopAsyncIteration
        if part := await self._connection.part():
            return part
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.release(connection)
