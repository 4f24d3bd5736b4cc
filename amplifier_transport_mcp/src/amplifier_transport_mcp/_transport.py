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
import msgspec

from amplifier_core.hookspecs import decode
from amplifier_transport_http import Pool

from ._correlator import SILENCE_SECONDS
from ._exchange import Exchange
from ._listener import Listener

if TYPE_CHECKING:
    from amplifier_transport_http import HttpFields

    from ._correlator import Correlator

_NOTIFICATION_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
_ACCEPTED, _NO_CONTENT = 202, 204
_AT_ONCE = 16  # notifications and answers that are on their way
_LAST_ID = "last-event-id"


class _Envelope(msgspec.Struct):
    """What says of a message of ours what it is."""

    id: int | str | None = None
    method: str | None = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode


class GuardedTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport to one server. ``limit`` is the size of the largest message, in bytes."""

    def __init__(self, fields: HttpFields, limit: int, correlator: Correlator) -> None:
        self.session_ended = asyncio.Event()
        self._limit = limit
        self._correlator = correlator
        self._pool = Pool(fields.url, fields.trust() if fields.url.scheme == "https" else None)
        self._listener = Listener(fields.url.copy_with(query=None), limit, correlator)
        self._exchanges: WeakValueDictionary[str, Exchange] = WeakValueDictionary()
        self._notifying: set[asyncio.Task[None]] = set()
        self._patience: asyncio.TimerHandle | None = None  # with the first question

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. The fault of a POST is not raised, but becomes the reply to its message."""
        content = await request.aread()
        stream = httpx.ByteStream(content)
        sent = httpx.Request(request.method, str(request.url), headers=request.headers.raw, stream=stream)
        if sent.method == "POST":
            return await self._post(sent, content)
        if sent.method == "DELETE":
            return await self._end_session(sent)
        return await self._listen(sent)

    async def room(self) -> None:
        """Wait until there is room for another message that has no reply."""
        while len(self._notifying) >= _AT_ONCE:
            await asyncio.wait(self._notifying, return_when=asyncio.FIRST_COMPLETED)

    async def _listen(self, request: httpx.Request) -> httpx2.Response:
        """Ask for a stream of events: the rest of one, or that of the server's own messages."""
        streamed = self._exchanges.get(request.headers.get(_LAST_ID, "")) or self._listener
        request.headers.pop(_LAST_ID, None)
        if streamed.place.id is not None:
            request.headers[_LAST_ID] = streamed.place.id
        return await streamed.resume(request, self._pool)

    async def _post(self, request: httpx.Request, content: bytes) -> httpx2.Response:
        message = _read_envelope(content)
        if message.id is not None and message.method is not None:
            exchange = Exchange(message.id, request, self._limit, self._correlator, self.session_ended)
            self._exchanges[exchange.token] = exchange
            if self._patience is None:
                self._patience = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._answer_first, exchange)
            return await exchange.run(self._pool.handle_async_request(request))
        if message.method == "notifications/initialized":  # the messages that follow may rely on it
            await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        else:
            task = asyncio.create_task(self._notify(request, self._cancelled(message, content)))
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)
        return httpx2.Response(_ACCEPTED)

    def _answer_first(self, exchange: Exchange) -> None:
        """End the first question to a server that is silent: it may wait to be greeted as before 2026."""
        if self._correlator.asks_first() is not None:
            exchange.abort()

    def _cancelled(self, message: _Envelope, content: bytes) -> Exchange | None:
        """Give the exchange that a message of ours cancels."""
        if message.method != "notifications/cancelled":
            return None
        return self._exchanges.get(str(decode(content)["params"]["requestId"]))

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail at once."""
        if self._patience is not None:
            self._patience.cancel()
        try:
            await self._finish_notifying()
        finally:
            await self._pool.aclose()

    async def _end_session(self, request: httpx.Request) -> httpx2.Response:
        await self._finish_notifying()
        if not self.session_ended.is_set():
            await self._send_and_forget(request, _GOODBYE_SECONDS)
        return httpx2.Response(_NO_CONTENT)

    async def _notify(self, request: httpx.Request, cancelled: Exchange | None) -> None:
        """Send a message without a reply. If it cancels a request, abort its exchange: its caller does not wait."""
        if cancelled is not None:
            cancelled.give_up()
        await self._send_and_forget(request, _NOTIFICATION_SECONDS)
        if cancelled is not None:
            cancelled.abort()

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
