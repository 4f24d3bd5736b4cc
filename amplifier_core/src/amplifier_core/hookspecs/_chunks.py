"""Chunks: the previews of a reply that a module streams before the reply (protocol, section 2).

Owns the buffer between a transport and one reader, and its bounds. It does not touch the module. A slow reader makes
the transport pause its module, if that delays no other request. Otherwise chunks that would exceed the buffer are
dropped and counted. Only previews are lost: the final reply is complete.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

ENOUGH = 256 * 1024  # bytes of JSON: from here on, the transport is asked to pause
_TOO_MUCH = 8 * 1024 * 1024  # bytes of JSON: above, chunks are dropped


class Chunks:
    """The chunks of one invocation, in order. ``unread``: they have no reader, and each is dropped as it comes."""

    __slots__ = ("_ended", "_queue", "_size", "_waiter", "_waiting_for_room", "dropped", "unread")

    def __init__(self) -> None:
        self._queue: deque[tuple[Any, int]] = deque()
        self._size = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_for_room: dict[Callable[[], None], None] = {}
        self.dropped: int = 0
        self.unread: bool = False

    def put(self, chunk: object, size: int) -> bool:
        """Append a chunk of ``size`` bytes of JSON. ``False`` asks to pause, if that delays no other request."""
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

    def count_dropped(self, count: int) -> None:
        """Count chunks that never came here, such as those that a worker elsewhere had to drop."""
        self.dropped += count

    def when_room(self, call: Callable[[], None]) -> None:
        """Call ``call`` once the buffer has room or no reader, perhaps now. Registering it twice calls it once."""
        if self._size < ENOUGH or self.unread:
            call()
        else:
            self._waiting_for_room[call] = None

    async def room(self) -> None:
        """Wait until the buffer has room or no reader."""
        room = asyncio.Event()
        self.when_room(room.set)
        await room.wait()

    def hold(self) -> None:
        """Note that the request has to wait before it is sent: no message is expected until ``sent``."""

    def sent(self) -> None:
        """Note that the request has been sent, after a ``hold``."""

    def end(self) -> None:
        """Mark the end: no chunk follows."""
        self._ended = True
        self._wake()

    def discard(self) -> None:
        """Drop the chunks in the buffer and all that follow."""
        self.unread = True
        self._queue.clear()
        self._size = 0
        self._make_room()

    async def get(self) -> Any:
        """Return the next chunk. ``StopAsyncIteration`` after the last one; ``BadRequest`` while another task waits."""
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise BadRequest("a stream has one reader: another task already waits for its next chunk")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take()

    @property
    def ready(self) -> bool:
        """Whether ``take`` has a chunk to return."""
        return bool(self._queue)

    def take(self) -> Any:
        """Return the next chunk. Call it only if the buffer is ``ready``."""
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
    """Chunks passed on to another buffer, or dropped. Each one restarts the idle time (``limits.idle_ms``)."""

    __slots__ = ("_rest", "_to", "_touch")

    def __init__(self, to: Chunks | None, touch: Callable[[], None], rest: Callable[[], None]) -> None:
        super().__init__()
        self._to = to
        self._touch = touch
        self._rest = rest

    def put(self, chunk: object, size: int) -> bool:
        """Pass a chunk on. While its reader is behind, the idle time stops, since the module may be held back."""
        self._touch()
        if self._to is None or self._to.put(chunk, size):
            return True
        self._rest()
        self._to.when_room(self._touch)
        return False

    def count_dropped(self, count: int) -> None:
        if self._to is not None:
            self._to.count_dropped(count)

    def hold(self) -> None:
        """Stop the idle time."""
        self._rest()

    def sent(self) -> None:
        """Let the idle time begin."""
        self._touch()

    def when_room(self, call: Callable[[], None]) -> None:
        if self._to is None:
            call()
        else:
            self._to.when_room(call)
