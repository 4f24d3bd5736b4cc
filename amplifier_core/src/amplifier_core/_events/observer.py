"""Observers: each receives events through one bounded queue and one task, so that none can delay or fail the run.

Owns that queue and its end. The namespace decides which observer receives which event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_REPORTS = ("hook:error", "events:dropped")  # losing one is not reported, or observers would keep each other busy
_DRAIN_SECONDS = 2.0  # how long ``close`` waits for an observer to receive the rest


class Observer:
    """One receiver of events: a bounded queue and a task, which ends with ``close``."""

    def __init__(
        self,
        name: str,
        tell: Callable[[bytes], Awaitable[None]],
        report: Callable[[str, Mapping[str, Any], KernelError | None], None],
        size: int,
    ) -> None:
        self.name = name
        self.holders = 0
        self._tell = tell
        self._report = report
        self._size = size
        self._queue: deque[tuple[str, bytes]] = deque()
        self._dropped = 0
        self._failures = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"observer {name}")

    def offer(self, event: str, line: bytes) -> None:
        """Take an event, or count it as dropped if the queue is full. Never waits."""
        if len(self._queue) >= self._size:
            self._dropped += event not in _REPORTS
            return
        self._queue.append((event, line))
        self._wake.set()

    async def close(self) -> None:
        """Deliver the queued events, for a bounded time, then end."""
        self._closing = True
        self._wake.set()
        await asyncio.wait((self._task,), timeout=_DRAIN_SECONDS)
        self._dropped += len(self._queue)
        self._queue.clear()
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=_DRAIN_SECONDS)
        self._tell_dropped()

    async def _run(self) -> None:
        while True:
            while self._queue:
                event, line = self._queue.popleft()
                await self._deliver(event, line)
                self._tell_dropped()
            if self._closing:
                return
            await self._wake.wait()
            self._wake.clear()

    async def _deliver(self, event: str, line: bytes) -> None:
        try:
            await self._tell(line)
        except asyncio.CancelledError:
            if self._task.cancelling():
                raise
            self._failed(event, RuntimeError("cancelled itself"))
        except Exception as error:  # an observer is foreign code, and cannot fail the run
            self._failed(event, error)

    def _failed(self, event: str, error: Exception) -> None:
        self._failures += 1
        if event not in _REPORTS:
            failure = KernelError.from_exception(error, f"observer {self.name}")
            self._report("hook:error", {"hook": self.name, "event": event, "failures": self._failures}, failure)

    def _tell_dropped(self) -> None:
        if dropped := self._dropped:
            self._dropped = 0
            self._report("events:dropped", {"hook": self.name, "count": dropped}, None)
