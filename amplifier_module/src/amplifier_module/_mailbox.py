"""The messages of one request that wait for a server to take them.

Owns how many may wait. What becomes of them is the server's business.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from ._channel import Channel
from ._errors import ModuleError

_FULL = 1024 * 1024  # bytes of chunks that wait for the caller, before a plain function waits too


class Mailbox(Channel):
    """The channel of one request: messages wait here until the server has taken them."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._here = threading.get_ident()
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._size = 0
        self._room = threading.Condition(self._lock)
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    def _send(self, message: bytes, *, last: bool) -> None:
        if not last:
            self._wait_for_room()
            if self.answered:  # meanwhile
                return
        self._messages.append((message, last))
        self._size += len(message)
        self._loop.call_soon_threadsafe(self._arrived.set)
        if last:
            self._room.notify_all()

    def _wait_for_room(self) -> None:
        if threading.get_ident() != self._here:
            self._room.wait_for(lambda: self._size <= _FULL or self.answered)
        elif self._size > self._limit:
            told = f"{self._size:,} bytes of chunks wait: await context.drain() between them"
            raise ModuleError("internal", told)

    async def drain(self) -> None:
        """Wait until the server has taken what waits."""
        await asyncio.sleep(0)
        while self._size > _FULL and not self.answered:
            self._taken.clear()
            await self._taken.wait()

    async def next(self) -> tuple[bytes, bool]:
        """Wait for a message; tell whether it is the last one."""
        while True:
            with self._lock:
                if self._messages:
                    message, last = self._messages.popleft()
                    self._size -= len(message)
                    self._room.notify_all()
                    self._taken.set()
                    return message, last
                self._arrived.clear()
            await self._arrived.wait()
