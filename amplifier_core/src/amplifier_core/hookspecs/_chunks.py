"""Chunks: what a module streams before its reply, on its way from a transport to one reader (protocol, section 2).

Owns the buffer between the two and its bounds. A reader that falls behind holds back its own module, where the
transport can do that without holding back anybody else; where it cannot, chunks that would exceed the buffer are
dropped and counted, which costs the preview: the final reply is complete.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

ENOUGH = 256 * 1024  # bytes of JSON: above, the transport is asked to pause
_TOO_MUCH = 8 * 1024 * 1024  # above, chunks are dropped


class Chunks:
    """The chunks of one invocation, in order. Where nobody reads them (``unread``), they are let go of as they come."""

    __slots__ = ("_ended", "_queue", "_size", "_waiter", "_waiting_for_room", "dropped", "unread")

    def __init__(self) -> None:
        self._queue: deque[tuple[Any, int]] = deque()
        self._size = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_for_room: dict[Callable[[], None], None] = {}
        self.dropped = 0
        self.unread = False

    def put(self, chunk: object, size: int) -> bool:
        """Take a chunk of ``size`` bytes of JSON. ``False``: enough for now, pause if that holds back nobody else."""
        if self.unread:
            return True
        if self._size > _TOO_MUCH:
            self.dropped += 1
            return False
        self._queue.append((chunk, size))
        self._size = held = self._size + size
        if self._waiter is not None:
            self._wake()
        return held < ENOUGH

    def when_room(self, call: Callable[[], None]) -> None:
        """Have something called when there is room again or nobody reads any more: once, however often it is said."""
        if self._size < ENOUGH or self.unread:
            call()
        else:
            self._waiting_for_room[call] = None

    async def room(self) -> None:
        """Wait until there is room again."""
        room = asyncio.Event()
        self.when_room(room.set)
        await room.wait()

    def end(self) -> None:
        """Say that no chunk follows."""
        self._ended = True
        self._wake()

    def discard(self) -> None:
        """Drop what is there, and whatever comes."""
        self.unread = True
        self._queue.clear()
        self._size = 0
        self._make_room()

    async def get(self) -> Any:
        """Give the next chunk. ``StopAsyncIteration`` after the last one; ``BadRequest`` while somebody else waits."""
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise BadRequest("a stream has one reader: somebody waits for its next chunk already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take()

    @property
    def ready(self) -> bool:
        """Whether there is a chunk to take at once."""
        return bool(self._queue)

    def take(self) -> Any:
        """Give the next chunk, which is there."""
        chunk, size = self._queue.popleft()
        self._size -= size
        if self._waiting_for_room and self._size < ENOUGH // 2:
            self._make_room()
        return chunk

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _make_room(self) -> None:
        calls, self._waiting_for_room = self._waiting_for_room, {}
        for call in calls:
            call()


class TimedChunks(Chunks):
    """Chunks on their way to somebody else, or to nobody, each of them a sign of life (``limits.idle_ms``)."""

    __slots__ = ("_rest", "_to", "_touch")

    def __init__(self, to: Chunks | None, touch: Callable[[], None], rest: Callable[[], None]) -> None:
        super().__init__()
        self._to = to
        self._touch = touch
        self._rest = rest

    def put(self, chunk: object, size: int) -> bool:
        """Take a chunk; while its reader is behind, nobody can expect another one."""
        self._touch()
        if self._to is None or self._to.put(chunk, size):
            return True
        self._rest()
        self._to.when_room(self._touch)
        return False

    def when_room(self, call: Callable[[], None]) -> None:
        if self._to is None:
            call()
        else:
            self._to.when_room(call)
