"""The parts of one kernel that its sessions share: clock, ids, bus, deadlines, plugins, host and settings.

Owns the tasks that end sessions, and those that close modules and observers. It owns none of the parts; the kernel
makes and closes them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from msgspec import Raw

    from amplifier_core._events.bus import Bus
    from amplifier_core._events.inbox import Inbox
    from amplifier_core._modules.deadline import Deadlines
    from amplifier_core._modules.host import KernelHost
    from amplifier_core._modules.plugins import Plugins
    from amplifier_core._protocol.ids import Clock, Ids
    from amplifier_core._protocol.message import SystemCall


T = TypeVar("T")

_LEAVE_SECONDS = 1.0  # the longest wait for foreign code that was cancelled


class Closable(Protocol):
    """A module or an observer. It is closed when no namespace holds it any more."""

    holders: int  # how many namespaces hold it

    async def close(self) -> None:
        """Release everything in bounded time. Never raises."""


class Settings(msgspec.Struct, frozen=True):
    """The embedder's choices. Times are in seconds."""

    timeout: float
    policy_timeout: float
    observer_queue: int
    fragment_bytes: int
    event_starts: bool = False
    recording: bool = False


class Runtime(msgspec.Struct, frozen=True, eq=False):
    """One kernel's parts."""

    clock: Clock
    ids: Ids
    bus: Bus
    inbox: Inbox
    deadlines: Deadlines
    plugins: Plugins
    host: KernelHost
    settings: Settings
    system_call: Callable[[Any, SystemCall], Coroutine[Any, Any, Raw]]  # `_syscalls.table`, which stands above
    _completing: set[asyncio.Task[None]] = msgspec.field(default_factory=set)
    _foreign: set[asyncio.Task[Any]] = msgspec.field(default_factory=set)

    async def close(self, *groups: Sequence[Closable]) -> None:
        """Close the groups one after the other, the members of a group at the same time.

        If the caller is cancelled, the closing goes on; ``drain`` waits for it.
        """
        if any(groups):
            await self.complete(_close(groups))

    async def complete(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to be done to its end, in a task of its own. If the caller is cancelled, it goes on."""
        task = self.deadlines.loop.create_task(work, name="complete")
        self._completing.add(task)
        task.add_done_callback(self._completing.discard)
        await asyncio.shield(task)

    async def run_foreign(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run foreign code in a task of its own. If the caller is cancelled, so is that task, and nobody waits for it.

        So code that hides its cancellation, or cleans up slowly, cannot hold its caller beyond a deadline. ``drain``
        waits for what is left of it.
        """
        task = asyncio.Task(work, loop=self.deadlines.loop, name=name, **_EAGER)
        if not task.done():
            self._foreign.add(task)
            task.add_done_callback(self._end_foreign)
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                task.cancel()
                raise
        return task.result()

    def _end_foreign(self, task: asyncio.Task[Any]) -> None:
        self._foreign.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, though nobody may wait for it any more

    async def drain(self) -> None:
        """Wait until all that is to be completed has ended, and for a bounded time for foreign code."""
        while self._completing:
            await asyncio.wait(self._completing)
        if self._foreign:
            _, stubborn = await asyncio.wait(self._foreign, timeout=_LEAVE_SECONDS)
            for task in stubborn:
                task.cancel()


_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}  # most hooks wait for nothing


async def _close(groups: Sequence[Sequence[Closable]]) -> None:
    for group in groups:
        await asyncio.gather(*(each.close() for each in group))
