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

from ._exchange import BodyStream, Exchange, for_sdk, read_envelope

if TYPE_CHECKING:
    from amplifier_transport_http import HttpFields

    from ._traffic import Traffic

_NOTIFICATION_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
_ACCEPTED, _NO_CONTENT = 202, 204


class GuardedTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport to one server. ``limit`` is the size of the largest message, in bytes."""

    def __init__(self, fields: HttpFields, limit: int, traffic: Traffic) -> None:
        self.session_ended = asyncio.Event()
        self._limit = limit
        self._traffic = traffic
        self._pool = Pool(fields.url, fields.trust() if fields.url.scheme == "https" else None)
        self._exchanges: WeakValueDictionary[int | str, Exchange] = WeakValueDictionary()
        self._notifying: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. The fault of a POST is not raised, but becomes the reply to its message."""
        if request.method == "DELETE":
            return await self._end_session(request)
        if request.method != "POST":  # a stream of the server's own, or a resumed one: the SDK lets them fail
            response = await self._send(request)
            return for_sdk(response, BodyStream(Body(response, httpx.URL(str(request.url)), self._limit)))
        message = read_envelope(await request.aread())
        if isinstance(message.id, int | str) and isinstance(message.method, str):
            exchange = Exchange(message.id, request, self._limit, self._traffic, self.session_ended)
            self._exchanges[message.id] = exchange
            return await exchange.run(self._send(request))
        if message.method == "notifications/initialized":  # the messages that follow may rely on it
            await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        else:
            task = asyncio.create_task(self._notify(request, cancels=message.method == "notifications/cancelled"))
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)
        return httpx2.Response(_ACCEPTED)

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail at once."""
        try:
            await self._finish_notifying()
        finally:
            await self._pool.aclose()

    async def _end_session(self, request: httpx2.Request) -> httpx2.Response:
        await self._finish_notifying()
        if not self.session_ended.is_set():
            await self._send_and_forget(request, _GOODBYE_SECONDS)
        return httpx2.Response(_NO_CONTENT)

    async def _notify(self, request: httpx2.Request, *, cancels: bool) -> None:
        """Send what has no reply. After the cancel of a request, abort its exchange: its caller does not wait."""
        await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        if cancels:
            exchange = self._exchanges.get(decode(await request.aread())["params"]["requestId"])
            if exchange is not None:
                exchange.abort()

    async def _finish_notifying(self) -> None:
        """Wait for the notifications for a moment, and drop those that are not sent then."""
        if self._notifying:
            _, late = await asyncio.wait(self._notifying, timeout=_GOODBYE_SECONDS)
            for task in late:
                task.cancel()

    async def _send_and_forget(self, request: httpx2.Request, seconds: float) -> None:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                response = await self._send(request)
                await response.aclose()

    async def _send(self, request: httpx2.Request) -> httpx.Response:
        """Send a request and wait for the head of the response. Raises ``httpx.TransportError``."""
        stream = httpx.ByteStream(await request.aread())
        sent = httpx.Request(request.method, str(request.url), headers=request.headers.raw, stream=stream)
        return await self._pool.handle_async_request(sent)
