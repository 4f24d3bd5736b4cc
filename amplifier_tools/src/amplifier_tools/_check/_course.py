"""The course of a check over lanes: what waits goes on in its lane, and the next step begins in another one.

Owns the lanes and their tasks. It does not know what a step looks at.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._wires import Lane, Wire

    Step = Callable[[Lane], Awaitable[None]]

__all__ = ["Course"]

_PATIENCE = 1.0  # seconds after which the next step does not wait for this one
_WAITING_MAX = 3  # steps that go on beside each other


class Course:
    """Takes one step after the other. A sound module that answers soon has one process for all of them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._free: list[Lane] = []
        self._steps: set[asyncio.Task[None]] = set()

    async def take(self, step: Step) -> None:
        """Take a step. If it waits for long, return, and let it go on beside the next ones."""
        task = asyncio.create_task(self._walk(step, await self._lane()))
        self._steps.add(task)
        await self._reap(asyncio.FIRST_COMPLETED, _PATIENCE)
        while len(self._steps) >= _WAITING_MAX:
            await self._reap(asyncio.FIRST_COMPLETED)

    async def settle(self) -> None:
        """Wait for all steps so far."""
        await self._reap(asyncio.ALL_COMPLETED)

    async def end(self) -> bool:
        """End a lane, and tell whether the module ended as it should."""
        return await (await self._lane()).close(seen=True)

    async def close(self) -> None:
        """End everything at once."""
        for task in self._steps:
            task.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        await asyncio.gather(*(lane.close(seen=False) for lane in self._free))

    async def _reap(self, when: str, seconds: float | None = None) -> None:
        if self._steps:
            done, self._steps = await asyncio.wait(self._steps, timeout=seconds, return_when=when)
            for task in done:
                task.result()

    async def _lane(self) -> Lane:
        while self._free:
            lane = self._free.pop()
            if lane.usable:
                return lane
            await lane.close(seen=False)
        return await self._wire.open()

    async def _walk(self, step: Step, lane: Lane) -> None:
        try:
            await step(lane)
        finally:
            self._free.append(lane)
