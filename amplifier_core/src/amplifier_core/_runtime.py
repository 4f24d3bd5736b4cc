"""What the parts of one kernel share: clock, ids, bus, guards, plugins and the embedder's settings.

Owns the tasks that close modules and observers. Two kernels share nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._bus import Bus
    from ._guard import Guards
    from ._ids import Clock, Ids
    from ._plugins import Plugins


class Closable(Protocol):
    """Something that sessions hold together, and that the last one to let go closes."""

    holders: int

    async def close(self) -> None:
        """Release everything in bounded time; never raises."""


@attrs.frozen
class Settings:
    """What an embedder may set, with the defaults of the protocol. Times are in seconds."""

    timeout: float = 30.0
    policy_timeout: float = 5.0
    observer_queue: int = 1024
    fragment_bytes: int = 1024 * 1024


@attrs.frozen
class Runtime:
    """One kernel's parts, handed to whatever needs them."""

    clock: Clock
    ids: Ids
    bus: Bus
    guards: Guards
    plugins: Plugins
    settings: Settings
    _closing: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)

    async def close(self, things: Iterable[Closable]) -> None:
        """Close things at once, and go on closing them if the caller is cancelled: ``drain`` waits for those."""
        tasks = [self.guards.loop.create_task(thing.close(), name="close") for thing in things]
        self._closing.update(tasks)
        for task in tasks:
            task.add_done_callback(self._closing.discard)
        if tasks:
            await asyncio.shield(asyncio.gather(*tasks))

    async def drain(self) -> None:
        """Wait until whatever is being closed is closed."""
        while self._closing:
            await asyncio.wait(self._closing)
