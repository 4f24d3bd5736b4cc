"""What the SDK's client sees of a response: the headers that it reads, and of a stream of events the labels.

Owns the reading of such a stream, and its speed. What a message means is for the one whose stream it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import httpx2
from mcp_types import JSONRPCRequest

from amplifier_core import KernelError

from ._pace import REQUEST
from ._sse import EventSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from amplifier_transport_http import Body

    from ._pace import Pace
    from ._passage import Parcel
    from ._resumption import Resumption
    from ._sse import Event

SESSION = "mcp-session-id"
_PASSED = (b"content-type", b"location", SESSION.encode())
"""Headers that the SDK reads. No others: it would send a cookie with the next request."""

_TURN = 0.01  # seconds of work, after which others get a turn
_PART = 8 * 1024  # bytes that are split at once: of the shortest lines that takes some milliseconds
_MOMENT = 1.0
_EVENT = 5  # an event costs as much as so many lines of a process

T = TypeVar("T")


class Streamed(Protocol):
    """Whose stream it is."""

    token: str
    """What the SDK has for the id of its events."""
    place: Resumption
    pace: Pace

    async def until_aborted(self, work: Awaitable[T]) -> T | None:
        """Wait for some work; gives ``None`` if nobody waits for the stream any more."""

    async def take(self, text: bytes) -> tuple[Parcel | None, bool]:
        """Take one message, and tell whether it is the last. Raises ``KernelError``."""

    def cut(self, cause: httpx.TransportError | None) -> None:
        """Take note that the stream has ended before the last message. Raises ``KernelError``."""

    def fault(self, error: KernelError) -> bytes:
        """Give the last message in place of the server's."""


class EventStream(httpx2.AsyncByteStream):
    """The events of a body up to the last message. A fault takes the place of the events in which it is found."""

    def __init__(self, owner: Streamed, body: Body) -> None:
        self._owner = owner
        self._body = body
        self._splitter = EventSplitter(body.check_size)
        self._parcels: deque[Parcel] = deque(maxlen=2)  # the SDK has labels of two: one of them may be received
        self._turn = 0.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            pieces = aiter(self._body)
            while piece := await self._next(pieces):
                size = len(piece)
                for start in range(0, len(piece), _PART):
                    for event in self._splitter.feed(piece[start : start + _PART]):
                        size = 0
                        yield await self._label(event)  # after the last one, the SDK reads no more
                    await self._share()
                await self._slow_down(size, 0)
        except KernelError as error:
            yield b"\n\ndata: %b\n\n" % self._owner.fault(error)

    async def aclose(self) -> None:
        _hold(self._parcels)
        await self._body.aclose()

    async def _share(self) -> None:
        """Give others a turn now and then: reading may not wait, since the next pieces may be there."""
        now = asyncio.get_running_loop().time()
        if now - self._turn > _TURN:
            await asyncio.sleep(0)
            self._turn = now

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Give the next piece; an empty one is the end."""
        cause: httpx.TransportError | None = None
        try:
            piece = await self._owner.until_aborted(anext(pieces, b""))
        except httpx.TransportError as error:
            piece, cause = b"", error
        if not piece:
            self._owner.cut(cause)
        return piece or b""

    async def _label(self, event: Event) -> bytes:
        """Give the event that the SDK sees in place of one."""
        self._owner.place.note(event, self._splitter.retry)
        label, cost, is_last = b"", _EVENT, False
        if event.message:
            parcel, is_last = await self._owner.take(event.message)
            if parcel is not None:
                self._parcels.append(parcel)
                label = parcel.label()
                cost = REQUEST if isinstance(parcel.message, JSONRPCRequest) else _EVENT
        if not is_last:
            await self._slow_down(len(event.message), cost)
        place = b"id: %b\nretry: 0\n" % self._owner.token.encode() if self._owner.place.id is not None else b""
        return b"%bdata: %b\n\n" % (place, label)

    async def _slow_down(self, size: int, cost: int) -> None:
        if seconds := self._owner.pace.spend(size, cost):
            await self._owner.until_aborted(asyncio.sleep(seconds))


class LabelledBody(httpx2.AsyncByteStream):
    """The label of one message as a body; ``None``: an empty body."""

    def __init__(self, parcel: Parcel | None) -> None:
        self._parcel = parcel

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"" if self._parcel is None else self._parcel.label()

    async def aclose(self) -> None:
        _hold(self._parcel)


def _hold(parcels: object) -> None:
    """Keep messages for a moment more: the SDK ends a response when its label has a receiver, which runs later."""
    asyncio.get_running_loop().call_later(_MOMENT, id, parcels)


async def stream_for_sdk(owner: Streamed, response: httpx.Response, body: Body) -> httpx2.Response:
    """Make the response that the SDK sees of one that should be a stream. Of any other it sees no body."""
    if response.is_success and body.media_type == "text/event-stream":
        return for_sdk(response, EventStream(owner, body))
    await body.aclose()
    return for_sdk(response, LabelledBody(None))


def for_sdk(response: httpx.Response, stream: EventStream | LabelledBody) -> httpx2.Response:
    """Make the response that the SDK sees of one that came."""
    headers = {lower: value for name, value in response.headers.raw if (lower := name.lower()) in _PASSED}
    if isinstance(stream, LabelledBody):  # a checked body is JSON, even if the server calls it something else
        headers[b"content-type"] = b"application/json"
    return httpx2.Response(response.status_code, headers=headers, stream=stream)
