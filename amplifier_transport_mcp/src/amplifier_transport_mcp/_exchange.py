"""One request of the SDK's client, and its response: a JSON body, or streams of events.

Owns what can be wrong with a response. A fault becomes the reply to the request, since an exception would end the
client. The reply names the fault, and the correlator keeps it until its call comes for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx
import httpx2
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from amplifier_core import KernelError, Unreachable
from amplifier_core.hookspecs import NotJson
from amplifier_transport_http import Body, Response, unreachable

from ._codes import SPOKEN, broke_contract
from ._correlator import Call
from ._events import SESSION, LabelledBody, for_sdk, stream_for_sdk
from ._messages import decode_any, failed, read_message
from ._resumption import Resumption

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Coroutine

    from mcp_types import JSONRPCMessage, RequestId

    from ._correlator import Correlator
    from ._passage import Parcel

_CLOSED_EARLY = "the server closed the connection before the end of its answer"
_SESSION_MAX = 1024  # characters
_ERRORS = 400
_NOT_FOUND = 404
_FORGETFUL = (400, _NOT_FOUND, 410)  # statuses of servers that have forgotten a session, if their page says so
_EXCERPT = 200  # characters of a server's own message
_FIRST_DELAY, _RESUMPTIONS = 0.25, 5

T = TypeVar("T")


class SessionEnded(Unreachable):
    """The server does not know the session: the request was not carried out."""


class Exchange:
    """One request that expects a reply, and its response."""

    def __init__(
        self, message_id: RequestId, request: httpx.Request, limit: int, correlator: Correlator, ended: asyncio.Event
    ) -> None:
        self._id = message_id
        self.token = str(message_id)
        self.url = request.url.copy_with(query=None)  # for errors: a query may be a secret
        self._limit = limit
        self._correlator = correlator
        self.pace = correlator.pace
        self._session_ended = ended
        self._in_session = SESSION in request.headers
        self.call = correlator.call(message_id) or Call("", None)  # no call: the client's own
        self.place = Resumption(str(self.url), _FIRST_DELAY, _RESUMPTIONS)
        self._scope = anyio.CancelScope()
        self._deadline = math.inf
        self._given_up = False
        self._response: httpx.Response

    def give_up(self) -> None:
        """Resume no stream from now on."""
        self._given_up = True

    def abort(self) -> None:
        """End the exchange, whose caller does not wait for it any more."""
        self._deadline = -math.inf
        self._scope.cancel()

    async def run(self, sending: Coroutine[Any, Any, httpx.Response]) -> httpx2.Response:
        """Wait for the response, and give one that the SDK understands. Raises ``CancelledError`` alone."""
        try:
            response = await self.until_aborted(self._receive(sending))
            return response or self._respond(_given_up())
        except httpx.TransportError as cause:
            return self._respond(unreachable(self.url, str(cause), cause))
        except KernelError as error:
            return self._respond(error)

    async def resume(self, request: httpx.Request, pool: httpx.AsyncBaseTransport) -> httpx2.Response:
        """Ask for the rest of a stream, when it is due. Raises ``httpx.TransportError``: the SDK tries again."""
        try:
            response = await self.until_aborted(self._ask_again(request, pool))
        except KernelError as error:
            return self._respond_with_event(error)
        if response is None:
            return self._respond_with_event(_given_up())
        return await stream_for_sdk(self, response, Body(response, self.url, self._limit))

    async def _ask_again(self, request: httpx.Request, pool: httpx.AsyncBaseTransport) -> httpx.Response:
        if not self._given_up:  # pragma: no branch - a race: given up between a broken stream and this
            await self.place.wait()
        if self._given_up:  # perhaps meanwhile
            raise _given_up()
        return await pool.handle_async_request(request)

    def _respond_with_event(self, error: KernelError) -> httpx2.Response:
        content = b"data: %b\n\n" % self.fault(error)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content)

    def _respond(self, error: KernelError) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=self.fault(error))

    async def until_aborted(self, work: Awaitable[T]) -> T | None:
        """Wait for some work; gives ``None`` if the exchange is aborted."""
        with anyio.CancelScope(deadline=self._deadline) as self._scope:
            return await work
        return None

    def fault(self, error: KernelError) -> bytes:
        """Make the reply that takes a fault through the SDK to its call."""
        return failed(self._id, self._correlator.keep_error(error)).model_dump_json().encode()

    async def take(self, text: bytes) -> tuple[Parcel, bool]:
        """Take one message, and tell whether it is the reply. Raises ``KernelError`` for what is neither."""
        try:
            message = await self._read(self._whole(text))
        except ValueError as error:
            raise broke_contract(str(self.url), str(error), text) from None
        if is_reply := isinstance(message, JSONRPCResponse | JSONRPCError):
            if message.id is not None and str(message.id) != self.token:
                why = f"the reply to request {self._id} has the id {message.id!r}"
                raise broke_contract(str(self.url), why, text)
            self.call.size = len(text)
            message.id = self._id
        elif isinstance(message, JSONRPCRequest):
            self._correlator.attribute(message.id, self._id)
        return self._correlator.passage.pack(message, len(text)), is_reply

    def cut(self, cause: httpx.TransportError | None) -> None:
        """Take note that a stream has ended before the reply. Raises ``Unreachable`` if it can't be resumed."""
        self.place.end()
        if self._deadline < 0 or self.place.id is None:
            raise unreachable(self.url, f"the connection broke: {cause}" if cause else _CLOSED_EARLY, cause)
        self.call.cut = True  # the SDK resumes it

    async def _receive(self, sending: Coroutine[Any, Any, httpx.Response]) -> httpx2.Response:
        self._response = response = await sending
        if not response.is_success:
            self.call.http_status = response.status_code
        self._check_session(response)
        body = Body(response, self.url, self._limit)
        if response.is_success and body.media_type == "text/event-stream":
            return await stream_for_sdk(self, response, body)
        page = await self._read_page(body)
        if response.is_redirect:  # the SDK follows those within the origin, and refuses the others
            return for_sdk(response, LabelledBody(None))
        return for_sdk(response, LabelledBody(await self._check(page)))

    async def _read_page(self, body: Body) -> Response:
        content, fault = b"", None
        try:
            content = await body.read()
        except KernelError as error:  # the status may say enough
            fault = error
        finally:
            await body.aclose()
        return self._whole(content, fault)

    def _check_session(self, response: httpx.Response) -> None:
        session: str = response.headers.get(SESSION, "")
        if len(session) > _SESSION_MAX or not (session.isascii() and session.isprintable()):
            why = f"{SESSION}: expected at most {_SESSION_MAX} printable ASCII characters"
            raise broke_contract(str(self.url), why)

    def _whole(self, content: bytes, fault: KernelError | None = None) -> Response:
        return Response(self.url, self._response.status_code, self._response.headers, content, fault)

    async def _check(self, response: Response) -> Parcel:
        """Give the reply of a response, or raise the error of one that is neither a reply nor an error of MCP."""
        if response.status >= _ERRORS:
            return await self._check_error(response)
        if response.fault is not None:
            raise response.fault
        parcel, is_reply = await self.take(response.body)
        if not is_reply:
            raise response.error("a message that is no reply")
        return parcel

    async def _check_error(self, response: Response) -> Parcel:
        """Give the error of MCP in a page, or raise the error that the status stands for."""
        message, failure = await self._read_error(response)
        said = "" if message is None else " ".join(message.error.message[:_EXCERPT].split())
        if self._in_session and self._is_forgotten(response, message):
            self._session_ended.set()
            raise SessionEnded(f"{self.url}: the server ended the session", details={"http_status": response.status})
        if message is not None and message.error.code in SPOKEN:
            reply = JSONRPCError.model_construct(jsonrpc="2.0", id=self._id, error=message.error)
            return self._correlator.passage.pack(reply, len(response.body))
        raise response.error(said) if said else failure

    async def _read_error(self, response: Response) -> tuple[JSONRPCError | None, KernelError]:
        """Read an error of MCP; without one, give the error that the status stands for."""
        failure = response.fault or response.error("no error of MCP")
        if response.fault is None:
            try:
                message = await self._read(response)
            except KernelError as error:
                return None, error
            except ValueError:  # JSON, but no message
                return None, failure
            if isinstance(message, JSONRPCError):
                return message, failure
        return None, failure

    def _is_forgotten(self, response: Response, message: JSONRPCError | None) -> bool:
        """Tell whether an error says that the server does not know the session.

        404 means that, whatever its page looks like, unless it answers the very request, as to an unknown method. Some
        servers say it in words.
        """
        if message is not None and str(message.id) == self.token and message.error.code in SPOKEN:
            return False
        said = response.body[:_EXCERPT].decode(errors="replace") if message is None else message.error.message
        speaks = "session" in said[:_EXCERPT].lower()
        return response.status == _NOT_FOUND or (response.status in _FORGETFUL and speaks)

    async def _read(self, response: Response) -> JSONRPCMessage:
        """Read a message. Raises ``KernelError`` for what is not JSON, and ``ValueError`` for what is no message."""
        try:
            value = await decode_any(response.body, self._limit)
        except NotJson as error:
            raise response.not_json(error) from None
        return read_message(value)


def _given_up() -> Unreachable:
    """Make the error of a call that nobody waits for any more."""
    return Unreachable("the caller has given up")
