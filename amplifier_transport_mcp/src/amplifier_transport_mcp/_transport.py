"""The httpx2 transport that the SDK's client sends through, on the connections of the HTTP transport.

Owns how each message is sent. The SDK speaks the protocol: sessions, headers, resumed streams. But an exception in one
request ends its client, and it waits for the response to each notification. So a POST does not raise here, and
notifications are sent in tasks.

Not httpx2's own connections: before they use one again, they do not look whether a response that no request asked for
waits on it, which then answers the next call; and each request costs several times as much.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import httpx
import httpx2

from amplifier_core.hookspecs import decode
from amplifier_transport_http import Body, Pool

from ._exchange import Exchange, for_sdk, read_envelope

if TYPE_CHECKING:
    from amplifier_transport_http import HttpFields

    from ._correlator import Correlator

_NOTIFICATION_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
_ACCEPTED, _NO_CONTENT = 202, 204


class _BodyStream(Body, httpx2.AsyncByteStream):
    """A body as it is, for httpx2."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport to one server. ``limit`` is the size of the largest message, in bytes."""

    def __init__(self, fields: HttpFields, limit: int, correlator: Correlator) -> None:
        self.session_ended = asyncio.Event()
        self._limit = limit
        self._correlator = correlator
        self._pool = Pool(fields.url, fields.trust() if fields.url.scheme == "https" else None)
        self._exchanges: WeakValueDictionary[int | str, Exchange] = WeakValueDictionary()
        self._notifying: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. The fault of a POST is not raised, but becomes the reply to its message."""
        content = await request.aread()
        stream = httpx.ByteStream(content)
        sent = httpx.Request(request.method, str(request.url), headers=request.headers.raw, stream=stream)
        if sent.method == "POST":
            return await self._post(sent, content)
        if sent.method == "DELETE":
            return await self._end_session(sent)
        response = await self._pool.handle_async_request(sent)  # a stream of events: the SDK lets it fail
        return for_sdk(response, _BodyStream(response, sent.url, self._limit))

    async def _post(self, request: httpx.Request, content: bytes) -> httpx2.Response:
        message = read_envelope(content)
        if isinstance(message.id, int | str) and isinstance(message.method, str):
            exchange = Exchange(message.id, request, self._limit, self._correlator, self.session_ended)
            self._exchanges[message.id] = exchange
            return await exchange.run(self._pool.handle_async_request(request))
        if message.method == "notifications/initialized":  # the messages that follow may rely on it
            await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        else:
            cancelled = decode(content)["params"]["requestId"] if message.method == "notifications/cancelled" else None
            task = asyncio.create_task(self._notify(request, cancelled))
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)
        return httpx2.Response(_ACCEPTED)

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail at once."""
        try:
            await self._finish_notifying()
        finally:
            await self._pool.aclose()

    async def _end_session(self, request: httpx.Request) -> httpx2.Response:
        await self._finish_notifying()
        if not self.session_ended.is_set():
            await self._send_and_forget(request, _GOODBYE_SECONDS)
        return httpx2.Response(_NO_CONTENT)

    async def _notify(self, request: httpx.Request, cancelled: int | str | None) -> None:
        """Send a message without a reply. If it cancels a request, abort its exchange: its caller does not wait."""
        await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        if cancelled is not None and (exchange := self._exchanges.get(cancelled)) is not None:
            exchange.abort()

    async def _finish_notifying(self) -> None:
        """Wait for the notifications for a moment, and drop those that are not sent then."""
        if self._notifying:
            _, late = await asyncio.wait(self._notifying, timeout=_GOODBYE_SECONDS)
            for task in late:
                task.cancel()

    async def _send_and_forget(self, request: httpx.Request, seconds: float) -> None:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                response = await self._pool.handle_async_request(request)
                await response.aclose()
