"""What the parts of one kernel share: clock, ids, bus, deadlines, plugins and the embedder's settings.

Owns the tasks that close modules and observers. Two kernels share nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from msgspec import Raw

    from amplifier_core._events.bus import Bus
    from amplifier_core._modules.deadline import Deadlines
    from amplifier_core._modules.host import KernelHost
    from amplifier_core._modules.plugins import Plugins
    from amplifier_core._protocol.ids import Clock, Ids
    from amplifier_core._protocol.message import SystemCall


class Closable(Protocol):
    """Something that sessions hold together, and that the last one to let go closes."""

    holders: int

    async def close(self) -> None:
        """Release everything in bounded time; never raises."""


class Settings(msgspec.Struct, frozen=True):
    """What the embedder chose. Times are in seconds."""

    timeout: float
    policy_timeout: float
    observer_queue: int
    fragment_bytes: int


class Runtime(msgspec.Struct, frozen=True, eq=False):
    """One kernel's parts, handed to whatever needs them."""

    clock: Clock
    ids: Ids
    bus: Bus
    deadlines: Deadlines
    plugins: Plugins
    host: KernelHost
    settings: Settings
    system_call: Callable[[Any, SystemCall], Coroutine[Any, Any, Raw]]  # `_syscalls.table`, which stands above
    _closing: set[asyncio.Task[None]] = msgspec.field(default_factory=set)

    async def close(self, *groups: Sequence[Closable]) -> None:
        """Close groups of things one after the other, each at once; if the caller is cancelled, that goes on.

        ``drain`` waits for what goes on.
        """
        if any(groups):
            closing = self.deadlines.loop.create_task(_close(groups), name="close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)

    async def drain(self) -> None:
        """Wait until whatever is being closed is closed."""
        while self._closing:
            await asyncio.wait(self._closing)


async def _close(groups: Sequence[Sequence[Closable]]) -> None:
    for group in groups:
        await asyncio.gather(*(thing.close() for thing in group))
