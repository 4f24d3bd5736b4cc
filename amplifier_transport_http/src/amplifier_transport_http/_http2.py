"""HTTP/2, spoken by httpx's own transport.

Owns when its connection is retired: it carries no new requests then, and is closed after its last one. That is so if
the server has said good-bye or closed it, and after a request that ends early. httpx does not reset the stream of such
a request: the module would not learn that the caller gave up, and its further data would use up the window that all
requests share.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ._small_reads import SmallReads


@attrs.define(eq=False)
class _Connection:
    transport: httpx.AsyncHTTPTransport
    reads: SmallReads
    requests: int = 0


class Http2(httpx.AsyncBaseTransport):
    """An httpx transport with one connection for all requests.

    ``make`` makes a transport for one connection, with what reads for it.
    """

    def __init__(self, make: Callable[[], tuple[httpx.AsyncHTTPTransport, SmallReads]]) -> None:
        self._make = make
        self._looking = asyncio.Lock()  # at an idle connection
        self._current: _Connection | None = None
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of the response. Raises ``httpx.TransportError``."""
        connection = await self._usable()
        connection.requests += 1
        try:
            response = await connection.transport.handle_async_request(request)
        except BaseException:
            await self.leave(connection, complete=False)
            raise
        stream = _Body(self, connection, cast("httpx.AsyncByteStream", response.stream))
        return httpx.Response(response.status_code, headers=response.headers, stream=stream)

    async def _usable(self) -> _Connection:
        """Give the connection that takes requests, as far as one can know, or a new one."""
        current = self._current
        if current is not None and not current.requests:
            async with self._looking:
                await self._look()
        if self._current is None or self._current.reads.leaving:
            self._current = _Connection(*self._make())
            self._open.add(self._current)
        return self._current

    async def _look(self) -> None:
        """Close an idle connection that the server has closed."""
        current = self._current
        if current is None or current.requests or await current.reads.is_open() or current is not self._current:
            return
        self._current = None
        if not current.requests and current in self._open:  # pragma: no branch - a request may have begun meanwhile
            self._open.remove(current)
            await current.transport.aclose()

    async def leave(self, connection: _Connection, *, complete: bool) -> None:
        """End a request; one that is not complete retires its connection, as does a good-bye."""
        connection.requests -= 1
        if self._current is connection and (connection.reads.leaving or not complete):
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
        self._complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part
        self._complete = True

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._http2.leave(self._connection, complete=self._complete)
