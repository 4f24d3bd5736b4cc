"""The two streams of a transport as the SDK's client takes them, made of functions.

Owns their shape alone. What is read and written is the transport's, and so is the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mcp.shared.message import SessionMessage

    Received = Coroutine[Any, Any, SessionMessage | Exception]


class _Stream:
    async def aclose(self) -> None:
        """Leave the end to the transport."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the end to the transport."""


class IncomingStream(_Stream):
    """The server's messages. ``receive`` raises ``StopAsyncIteration`` at the end: the SDK then fails its requests."""

    def __init__(self, receive: Callable[[], Received]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Received:
        return self._receive()

    receive = __anext__  # a stream has it; the SDK iterates


class OutgoingStream(_Stream):
    """The client's messages."""

    def __init__(self, send: Callable[[SessionMessage], Coroutine[Any, Any, None]]) -> None:
        self.send = send
