"""HTTP/2 by httpx's own transport, whose connection is given up together with a request.

Owns when a connection is retired. httpx does not reset a stream that nobody reads any more: its module would never
learn that the caller gave up, and what it still sends would use up the window of all the others. So a request that ends
early retires its connection: nothing new goes there, and it is closed as soon as no other request is on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@attrs.define(eq=False)
class _Connection:
    transport: httpx.AsyncHTTPTransport
    requests: int = 0


class Http2(httpx.AsyncBaseTransport):
    """An httpx transport with one connection for all requests; ``make`` gives what makes it."""

    def __init__(self, make: Callable[[], httpx.AsyncHTTPTransport]) -> None:
        self._make = make
        self._current: _Connection | None = None
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of the response. Raises ``httpx.TransportError``."""
        if self._current is None:
            self._current = _Connection(self._make())
            self._open.add(self._current)
        connection = self._current
        connection.requests += 1
        try:
            response = await connection.transport.handle_async_request(request)
        except BaseException:
            await self.leave(connection, whole=False)
            raise
        stream = _Body(self, connection, cast("httpx.AsyncByteStream", response.stream))
        return httpx.Response(response.status_code, headers=response.headers, stream=stream)

    async def leave(self, connection: _Connection, *, whole: bool) -> None:
        """End a request; one that is not whole retires its connection."""
        connection.requests -= 1
        if not whole and self._current is connection:
            self._current = None
        if not connection.requests and self._current is not connection and connection in self._open:
            self._open.remove(connection)
            await connection.transport.aclose()

    async def aclose(self) -> None:
        """Close every connection; requests in flight fail at once. Idempotent."""
        self._current = None
        while self._open:
            await self._open.pop().transport.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of one response. Closing it early retires its connection."""

    def __init__(self, http2: Http2, connection: _Connection, stream: httpx.AsyncByteStream) -> None:
        self._http2 = http2
        self._connection = connection
        self._stream = stream
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part
        self._whole = True

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._http2.leave(self._connection, whole=self._whole)
