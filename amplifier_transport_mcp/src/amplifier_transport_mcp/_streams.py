"""The two streams of a transport as the SDK's client takes them, made of functions.

Owns their shape alone. What is read and written is the transport's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from mcp.client import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mcp.shared.message import SessionMessage

    Close = Callable[[], Coroutine[Any, Any, None]]
    Received = Coroutine[Any, Any, SessionMessage | Exception]


class Streams(Transport, Protocol):
    """A transport, entered for its two streams."""

    @property
    def stale(self) -> bool:
        """Whether the next request needs other streams, as far as is known."""


async def _do_nothing() -> None:
    """Leave the end to the owner of the streams."""


class _Stream:
    def __init__(self, close: Close) -> None:
        self._close = close

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class IncomingStream(_Stream):
    """The server's messages. ``receive`` raises ``StopAsyncIteration`` at the end: the SDK then fails its requests."""

    def __init__(self, receive: Callable[[], Received], close: Close = _do_nothing) -> None:
        super().__init__(close)
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Received:
        return self._receive()

    receive = __anext__  # a stream has it; the SDK iterates


class OutgoingStream(_Stream):
    """The client's messages."""

    def __init__(self, send: Callable[[SessionMessage], Coroutine[Any, Any, None]], close: Close = _do_nothing) -> None:
        super().__init__(close)
        self._send = send

    def send(self, item: SessionMessage) -> Coroutine[Any, Any, None]:
        return self._send(item)
