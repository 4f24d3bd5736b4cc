"""A server elsewhere, under the SDK's client: MCP's streamable HTTP, with a guard below that lets one call fail alone.

Owns what is wrong with requests and responses. The SDK's transport speaks the protocol: sessions, streams that are
taken up again, headers. But one request that fails ends it, it forgets statuses, and waits for notifications. So the
guard never raises: what fails becomes the reply of its own call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx
import httpx2
import msgspec
from mcp.client.streamable_http import streamable_http_client
from mcp_types import JSONRPCRequest

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import UNSET, causes, decode

from ._codes import SPOKEN, broke_contract, of_status
from ._correlator import Call
from ._network import Network
from ._sse import Events, EventTooLargeError
from ._stdio import failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.shared.message import SessionMessage

    from ._correlator import Correlator
    from ._fields import HttpFields

_HEADERS = {"accept-encoding": "identity", "user-agent": "amplifier-transport-mcp"}
_SESSION = b"mcp-session-id"
_ASIDE_SECONDS = 5.0  # for what nobody waits for: notifications, and the end of a session
_FAREWELL_SECONDS = 1.0
_ERRORS = 400
_ACCEPTED = 202
_NOT_FOUND = 404
_EXCERPT = 200  # characters of a body that an error shows


class Remote:
    """One client's HTTP, and the streams through which the SDK uses it. ``stale``: its session may be no more."""

    def __init__(self, fields: HttpFields, limit: int, traffic: Correlator) -> None:
        self._fields = fields
        self._traffic = traffic
        self._guard = _Guard(fields.url, limit, traffic, Network(fields))
        self._stack = contextlib.AsyncExitStack()

    @property
    def stale(self) -> bool:
        """Whether the next request had better begin a new session."""
        return self._guard.stale

    async def __aenter__(self) -> tuple[_Incoming, _Outgoing]:
        """Give the streams. Nothing is sent yet."""
        client = httpx2.AsyncClient(
            transport=self._guard,
            headers={**_HEADERS, **self._fields.headers},
            timeout=None,
            trust_env=False,
        )
        await self._stack.enter_async_context(client)
        streams = streamable_http_client(
            self._fields.url, http_client=client, terminate_on_close=False, max_sse_event_size=None
        )
        read, write = await self._stack.enter_async_context(streams)
        return _Incoming(read, self._traffic), _Outgoing(write, self._traffic)

    async def __aexit__(self, *error: object) -> None:
        """Drop all connections."""
        await self._stack.aclose()


class _Head(msgspec.Struct):
    """What a message of JSON-RPC is, and nothing of what it says."""

    id: int | str | msgspec.UnsetType | None = UNSET
    method: str | msgspec.UnsetType = UNSET
    result: msgspec.Raw | msgspec.UnsetType = UNSET
    error: msgspec.Raw | msgspec.UnsetType = UNSET


_head = msgspec.json.Decoder(_Head).decode


class _Guard(httpx2.AsyncBaseTransport):
    """An httpx2 transport between the SDK and the network."""

    def __init__(self, url: str, limit: int, traffic: Correlator, inner: Network) -> None:
        self.stale = False
        self.traffic = traffic
        self.limit = limit
        self._url = url
        self._inner = inner
        self._session = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._asides: set[asyncio.Task[None]] = set()
        self._posts: dict[int | str, _Post] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Of a POST nothing is raised: what fails is its reply."""
        if request.method != "POST":  # a stream of the server's own, or one taken up again: the SDK lets them fail
            return _without_cookies(await self._inner.handle_async_request(request))
        head = _head(await request.aread())
        if isinstance(head.id, int | str) and head.method is not UNSET:
            post = self._posts[head.id] = _Post(self, head.id, str(request.url))
            return await post.send(request, self._inner)
        if head.method == "notifications/initialized":  # what follows may rely on it
            await self._quietly(request, _ASIDE_SECONDS)
        else:
            task = asyncio.create_task(self._aside(request, head))
            self._asides.add(task)
            task.add_done_callback(self._asides.discard)
        return httpx2.Response(_ACCEPTED)

    async def aclose(self) -> None:
        """Say good-bye to the session, and close all connections."""
        if self._asides:
            await asyncio.wait(self._asides, timeout=_FAREWELL_SECONDS)
        for task in self._asides:
            task.cancel()
        if self._session and not self.stale:
            farewell = httpx2.Request("DELETE", self._url, headers=self._headers)
            await self._quietly(farewell, _FAREWELL_SECONDS)
        await self._inner.aclose()

    def begun(self, request: httpx2.Request, session: bytes) -> None:
        """Note the session that a response begins, for its end."""
        if session != self._session:
            self._session = session
            kept = [(name, value) for name, value in request.headers.raw if not name.lower().startswith(b"content-")]
            self._headers = [*kept, (_SESSION, session)]

    def over(self, request_id: int | str) -> None:
        """Forget a request that was answered."""
        self._posts.pop(request_id, None)

    async def _aside(self, request: httpx2.Request, head: _Head) -> None:
        """Send what nobody waits for. After a cancel, nobody reads the cancelled reply either."""
        await self._quietly(request, _ASIDE_SECONDS)
        if head.method == "notifications/cancelled":
            post = self._posts.get(decode(await request.aread())["params"]["requestId"])
            if post is not None:
                post.abort()

    async def _quietly(self, request: httpx2.Request, seconds: float) -> None:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                response = await self._inner.handle_async_request(request)
                await response.aclose()


class _Post:
    """One request of the SDK's and its response, whole or as a stream of events."""

    def __init__(self, guard: _Guard, request_id: int | str, url: str) -> None:
        self._guard = guard
        self._id = request_id
        self._url = url
        self._call = guard.traffic.call(request_id) or Call("", None)  # of ours, of which nobody asks more
        self._scope = anyio.CancelScope()
        self._until = math.inf
        self._resumable = False
        self.done = False

    def abort(self) -> None:
        """End the exchange: its caller has given up, and is not waiting for it any more."""
        self._until = -math.inf
        self._scope.cancel()

    async def send(self, request: httpx2.Request, inner: Network) -> httpx2.Response:
        """Exchange one request for a response that the SDK understands."""
        try:
            with anyio.CancelScope() as self._scope:
                response = await inner.handle_async_request(request)
                return await self._take(request, _without_cookies(response))
        except httpx.TransportError as error:
            return self._fail(self.unreachable(str(error), error))
        except KernelError as error:
            return self._fail(error)
        except asyncio.CancelledError:
            self.over()
            raise
        return self._fail(Unreachable("nobody waits for this reply any more"))

    def over(self) -> None:
        """Note that nothing more comes of this request."""
        self._guard.over(self._id)

    def unreachable(self, why: str, error: BaseException | None = None) -> Unreachable:
        """Make the error of an exchange that was cut off."""
        details = {"url": self._url, **({"causes": causes(error)} if error else {})}
        return Unreachable(f"{self._url}: {why or 'the connection broke'}", details=details)

    async def _take(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Look at a response, and make of it what the SDK understands."""
        headers = {name.lower(): value for name, value in response.headers.raw}  # `get` takes 10 µs a time
        if _SESSION in headers:
            self._guard.begun(request, headers[_SESSION])
        if not response.is_success:
            self._call.http_status = response.status_code
        if response.is_redirect:
            return response
        coding = headers.get(b"content-encoding", b"identity").lower()
        if coding != b"identity":
            await response.aclose()
            raise broke_contract(self._url, f"the content-encoding {coding.decode()!r}, which was not asked for")
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if response.is_success and kind == b"text/event-stream":
            response.stream = _Events(self, response.stream, self._guard.limit)
            return response
        body = await self._read(_stream(response))
        self._look(request, response.status_code, body)
        response.stream = httpx2.ByteStream(body)
        response.headers["content-type"] = "application/json"  # whatever it was called, it is
        return response

    async def _read(self, stream: httpx2.AsyncByteStream) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > self._guard.limit:
                    raise self.too_large()
        finally:
            await stream.aclose()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def too_large(self) -> Internal:
        """Make the error of a message that is larger than its limit."""
        limit = self._guard.limit
        message = f"{self._url} answered with more than {limit} bytes (limits.message_bytes)"
        return Internal(message, details={"url": self._url, "limit": limit})

    def _look(self, request: httpx2.Request, status: int, body: bytes) -> None:
        """Look at a body that came whole: a reply of the right shape, or what its status stands for."""
        error = self._error_in(body) if status >= _ERRORS else None
        if status >= _ERRORS and (error is None or error.get("code") not in SPOKEN):
            raise self._by_status(request, status, body, error)
        if error is None and not self.check(body, status):
            raise of_status(status, self._url, "a message that is no reply")
        self.over()

    def _error_in(self, body: bytes) -> dict[str, Any] | None:
        try:
            error = _head(body).error
        except msgspec.MsgspecError:
            return None
        return decode(error) if error is not UNSET and bytes(error).startswith(b"{") else None

    def _by_status(
        self, request: httpx2.Request, status: int, body: bytes, error: dict[str, Any] | None
    ) -> KernelError:
        said = str((error or {}).get("message") or "")
        known = any(name.lower() == _SESSION for name, _ in request.headers.raw)
        if known and (status == _NOT_FOUND or "session" in said.lower()):
            self._guard.stale = True
            return SessionEnded(f"{self._url}: the server ended the session", details={"http_status": status})
        excerpt = body[: 4 * _EXCERPT].decode(errors="replace")[:_EXCERPT]
        return of_status(status, self._url, said[:_EXCERPT] or _kind_of(body), **({"body": excerpt} if excerpt else {}))

    def check(self, text: bytes, status: int | None = None) -> bool:
        """Look at a message: whether it is the reply. Raises the error of one that nobody can take for a reply.

        What is inside is not looked at: the SDK decodes it anyway, though it lets pass what is no UTF-8.
        """
        try:
            if not text.isascii():
                text.decode()
            head = _head(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            what = "an empty body" if status and not text.strip() else f"{_kind_of(text)}: {error}"
            raise of_status(status, self._url, what) if status else broke_contract(self._url, what) from None
        if head.method is not UNSET:
            if isinstance(head.id, int | str):
                self._guard.traffic.attribute(head.id, self._id)
            return False
        if str(head.id) != str(self._id):
            raise broke_contract(self._url, f"the reply to request {self._id} has the id {head.id!r}")
        if (head.result is UNSET) == (head.error is UNSET):
            raise broke_contract(self._url, "expected either a result or an error")
        self._call.size = len(text)
        return True

    async def pieces(self, parts: AsyncIterator[bytes], events: Events) -> list[bytes]:
        """Give the next events of a stream as they came, or the fault in their place; none: it is over."""
        try:
            return await self._pieces(parts, events)
        except EventTooLargeError:
            return [self._event(self.too_large())]
        except KernelError as error:
            return [self._event(error)]

    async def _pieces(self, parts: AsyncIterator[bytes], events: Events) -> list[bytes]:
        found: list[bytes] = []
        while not found and not self.done:
            piece = await self._next(parts)
            if not isinstance(piece, bytes):
                self.done = True
                self._ended(piece)
                break
            for raw, text, named in events.feed(piece):
                self._resumable |= named
                found.append(raw)
                if text and self.check(text):
                    self.done = True
                    break
        return found

    def _ended(self, cause: httpx.TransportError | None) -> None:
        """Fail the call whose stream has ended, unless the SDK can take it up again where it was."""
        if self._until < 0 or not self._resumable:
            why = f"the connection broke: {cause}" if cause else "the server hung up before the end of its answer"
            raise self.unreachable(why, cause)
        self._call.cut = True

    async def _next(self, parts: AsyncIterator[bytes]) -> bytes | httpx.TransportError | None:
        """Wait for the next piece; ``None``: there is none, or nobody waits for it any more."""
        try:
            with anyio.CancelScope(deadline=self._until) as self._scope:
                return await anext(parts, None)
        except httpx.TransportError as error:
            return error
        return None

    def _fail(self, error: KernelError) -> httpx2.Response:
        self.over()
        reply = failed(self._id, self._guard.traffic.keep_error(error))
        return httpx2.Response(200, json=reply.model_dump(mode="json"))

    def _event(self, error: KernelError) -> bytes:
        self.done = True
        reply = failed(self._id, self._guard.traffic.keep_error(error))
        return b"\n\ndata: %b\n\n" % reply.model_dump_json().encode()


class SessionEnded(Unreachable):
    """The server does not know the session: what was asked was not carried out."""


class _Events(httpx2.AsyncByteStream):
    """The body that the SDK reads in place of a stream of events."""

    def __init__(self, post: _Post, stream: Any, limit: int) -> None:
        self._post = post
        self._stream: httpx2.AsyncByteStream = stream
        self._events = Events(limit)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = self._stream.__aiter__()
        while pieces := await self._post.pieces(parts, self._events):
            yield b"".join(pieces)

    async def aclose(self) -> None:
        self._post.over()
        await self._stream.aclose()


class _Incoming:
    """What the SDK's transport hands to the SDK's client, less what is for us."""

    def __init__(self, inner: Any, traffic: Correlator) -> None:
        self._inner = inner
        self._traffic = traffic

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            item: SessionMessage | Exception = await anext(self._inner)
            if isinstance(item, Exception) or self._traffic.on_receive(item.message):
                return item

    receive = __anext__  # what a stream has; the SDK iterates

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Quiet(JSONRPCRequest):
    """A request that the SDK writes out in vain: 2 ms a MiB, for a log that takes no debug messages."""

    def __str__(self) -> str:
        return f"{self.method} {self.id}"


class _Outgoing:
    """What the SDK's client hands to the SDK's transport."""

    def __init__(self, inner: Any, traffic: Correlator) -> None:
        self._inner = inner
        self._traffic = traffic

    async def send(self, item: SessionMessage) -> None:
        self._traffic.on_send(item.message)
        if isinstance(item.message, JSONRPCRequest):
            item.message = _Quiet.model_construct(item.message.model_fields_set, **dict(item.message))
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _stream(response: httpx2.Response) -> httpx2.AsyncByteStream:
    return response.stream  # type: ignore[return-value]


def _without_cookies(response: httpx2.Response) -> httpx2.Response:
    """Drop what would be sent with the next request: no state is kept but the session."""
    if "set-cookie" in response.headers:
        del response.headers["set-cookie"]
    return response


def _kind_of(body: bytes) -> str:
    start = body.lstrip()[:1]
    return "an empty body" if not start else "HTML, not JSON" if start == b"<" else "no JSON of MCP"
