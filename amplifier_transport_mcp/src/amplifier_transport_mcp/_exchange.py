"""One request of the SDK's client, and its response: a JSON body, or a stream of events.

Owns what can be wrong with a response. A fault becomes the reply to the request, since an exception would end the
client. The reply names the fault, and the correlator keeps it until its call comes for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx
import httpx2
import msgspec

from amplifier_core import KernelError, Unreachable
from amplifier_core.hookspecs import UNSET, NotJson
from amplifier_transport_http import Body, Response, unreachable

from ._codes import SPOKEN, broke_contract
from ._correlator import Call
from ._sse import EventSplitter
from ._stdio import failed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine

    from mcp_types import RequestId

    from ._correlator import Correlator

_CLOSED_EARLY = "the server closed the connection before the end of its answer"
_SESSION = "mcp-session-id"
_ERRORS = 400
_NOT_FOUND = 404
_EXCERPT = 200  # characters of a server's own message
_PASSED = (b"content-type", b"location", _SESSION.encode())
"""Headers that the SDK reads. No others: it would send a cookie with the next request."""

T = TypeVar("T")


class SessionEnded(Unreachable):
    """The server does not know the session: the request was not carried out."""


class _Error(msgspec.Struct):
    """An error of JSON-RPC, without its data."""

    code: int = 0
    message: str = ""


class Envelope(msgspec.Struct):
    """The fields of a message of JSON-RPC that say what it is."""

    id: int | str | msgspec.UnsetType | None = UNSET
    method: str | msgspec.UnsetType = UNSET
    result: msgspec.Raw | msgspec.UnsetType = UNSET
    error: _Error | msgspec.UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(Envelope).decode


def read_envelope(message: bytes) -> Envelope:
    """Read the envelope of a message, or raise ``NotJson``.

    It checks UTF-8, because the SDK, which decodes the message again, does not.
    """
    try:
        if not message.isascii():
            message.decode()
        return _decode_envelope(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(str(error)) from None


class Exchange:
    """One request that expects a reply, and its response."""

    def __init__(
        self, message_id: RequestId, request: httpx.Request, limit: int, correlator: Correlator, ended: asyncio.Event
    ) -> None:
        self._id = message_id
        self.url = request.url.copy_with(query=None)  # for errors: a query may be a secret
        self._limit = limit
        self._correlator = correlator
        self._session_ended = ended
        self._in_session = _SESSION in request.headers
        self.call = correlator.call(message_id) or Call("", None)  # no call: the client's own
        self._scope = anyio.CancelScope()
        self._deadline = math.inf
        self._response: httpx.Response

    def abort(self) -> None:
        """End the exchange, whose caller does not wait for it any more."""
        self._deadline = -math.inf
        self._scope.cancel()

    async def run(self, sending: Coroutine[Any, Any, httpx.Response]) -> httpx2.Response:
        """Wait for the response, and give one that the SDK understands. Raises ``CancelledError`` alone."""
        try:
            response = await self.until_aborted(self._receive(sending))
            return response or self._respond(Unreachable("the caller has given up"))
        except httpx.TransportError as cause:
            return self._respond(unreachable(self.url, str(cause), cause))
        except KernelError as error:
            return self._respond(error)

    def _respond(self, error: KernelError) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=self.fault(error))

    async def until_aborted(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Wait for some work; gives ``None`` if the exchange is aborted."""
        with anyio.CancelScope(deadline=self._deadline) as self._scope:
            return await work
        return None

    def fault(self, error: KernelError) -> bytes:
        """Make the reply that takes a fault through the SDK to its call."""
        return failed(self._id, self._correlator.keep_error(error)).model_dump_json().encode()

    def is_reply(self, message: bytes) -> bool:
        """Tell whether a message is the reply, or one that may precede it. Raises ``KernelError`` if it is neither."""
        try:
            envelope = read_envelope(message)
        except NotJson as error:
            raise self._whole(message).not_json(error) from None
        if envelope.method is not UNSET:
            if isinstance(envelope.id, int | str):
                self._correlator.attribute(envelope.id, self._id)
            return False
        if str(envelope.id) != str(self._id):
            raise broke_contract(str(self.url), f"the reply to request {self._id} has the id {envelope.id!r}")
        if (envelope.result is UNSET) == (envelope.error is UNSET):
            raise broke_contract(str(self.url), "expected either a result or an error")
        self.call.size = len(message)
        return True

    async def _receive(self, sending: Coroutine[Any, Any, httpx.Response]) -> httpx2.Response:
        self._response = response = await sending
        if not response.is_success:
            self.call.http_status = response.status_code
        body = Body(response, self.url, self._limit)
        if response.is_success and body.media_type == "text/event-stream":
            return for_sdk(response, EventStream(self, body))
        try:
            content = await body.read()
        finally:
            await body.aclose()
        if not response.is_redirect:  # the SDK follows those within the origin, and refuses the others
            self._check(self._whole(content))
        return for_sdk(response, httpx2.ByteStream(content))

    def _whole(self, content: bytes) -> Response:
        return Response(self.url, self._response.status_code, self._response.headers, content)

    def _check(self, response: Response) -> None:
        """Raise the error of a response that is neither a reply nor an error of MCP."""
        if response.status >= _ERRORS:
            self._check_error(response)
        elif not self.is_reply(response.body):
            raise response.error("a message that is no reply")

    def _check_error(self, response: Response) -> None:
        error = _Error()
        try:
            error = read_envelope(response.body).error or error
            failure = response.error(" ".join(error.message.split())[:_EXCERPT] or "no error of MCP")
        except NotJson as cause:
            failure = response.not_json(cause)
        if error.code in SPOKEN:
            return
        if self._in_session and (response.status == _NOT_FOUND or "session" in error.message.lower()):
            self._session_ended.set()
            raise SessionEnded(f"{self.url}: the server ended the session", details={"http_status": response.status})
        raise failure


class EventStream(httpx2.AsyncByteStream):
    """The events of a body up to the reply. A fault takes the place of the events in which it is found."""

    def __init__(self, exchange: Exchange, body: Body) -> None:
        self._exchange = exchange
        self._body = body
        self._splitter = EventSplitter(body.check_size)
        self._resumable = False
        self._over = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            pieces = aiter(self._body)
            while not self._over:
                if events := await self._next(pieces):
                    yield events
        except KernelError as error:
            yield b"\n\ndata: %b\n\n" % self._exchange.fault(error)

    async def aclose(self) -> None:
        await self._body.aclose()

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Give the events that the next piece completes."""
        cause: httpx.TransportError | None = None
        try:
            piece = await self._exchange.until_aborted(anext(pieces, b""))
        except httpx.TransportError as error:
            piece, cause = b"", error
        if piece:
            return b"".join(self._until_reply(piece))
        self._over = True
        if piece is None or not self._resumable:
            why = f"the connection broke: {cause}" if cause else _CLOSED_EARLY
            raise unreachable(self._exchange.url, why, cause)
        self._exchange.call.cut = True  # the SDK resumes it
        return b""

    def _until_reply(self, piece: bytes) -> list[bytes]:
        found: list[bytes] = []
        for event in self._splitter.feed(piece):
            self._resumable |= event.has_id
            found.append(event.raw)
            if event.message and self._exchange.is_reply(event.message):
                self._over = True
                break
        return found


def for_sdk(response: httpx.Response, stream: httpx2.AsyncByteStream) -> httpx2.Response:
    """Make the response that the SDK sees of one that came."""
    headers = {lower: value for name, value in response.headers.raw if (lower := name.lower()) in _PASSED}
    if isinstance(stream, httpx2.ByteStream):  # a checked body is JSON, even if the server calls it something else
        headers[b"content-type"] = b"application/json"
    return httpx2.Response(response.status_code, headers=headers, stream=stream)
