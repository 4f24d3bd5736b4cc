"""Budgets: the memory that a module's processes may hold together, and the CPU time that an invocation may cost.

Owns the samples and the checks against the limits. The connection measures the process tree, in one of the meter's
threads, and kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import BudgetExceeded, KernelError, Oom

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from amplifier_core._protocol.descriptor import Limits
    from amplifier_core.hookspecs import Connection, Usage

    from .deadline import Deadline
    from .meter import Meter

_BUSY_SECONDS = 0.025  # between two samples, while an invocation runs
_IDLE_SECONDS = 0.25  # between two samples, while none runs
_REST = 10  # times what a sample cost: a large tree is looked at more rarely
_LONGEST_REST = 5.0  # seconds between two exact samples, whatever they cost


class Budget:
    """One module's budgets. Samples during each invocation and, with a memory budget, between invocations too."""

    def __init__(self, path: str, connection: Connection, limits: Limits, meter: Meter) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._connection = connection
        self._limits = limits
        self._meter = meter
        self._sampling = asyncio.Lock()  # samples are counted in the order in which they were taken
        self._charged: dict[Deadline, None] = {}
        self._cpu_ms = 0.0
        self._cost = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self._weighing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the memory, if it has a limit."""
        if self._limits.memory_bytes is not None:
            self._schedule()

    def close(self) -> None:
        """Stop sampling. A sample that a thread is taking counts no more."""
        for each in (self._timer, self._look, self._weighing):
            if each is not None:
                each.cancel()

    @contextlib.asynccontextmanager
    async def charged(self, deadline: Deadline) -> AsyncIterator[None]:
        """Charge an invocation for the CPU time that the module spends during the ``async with`` block.

        Invocations that run at the same time share it equally. Raises ``BudgetExceeded`` at the end of the block if the
        invocation spent more than ``limits.cpu_ms``.
        """
        if self._limits.cpu_ms is not None:
            await self._sample()
        self._charged[deadline] = None
        self._schedule()
        try:
            yield
            if self._limits.cpu_ms is not None:
                await self._sample()
        finally:
            del self._charged[deadline]
        if self._is_exceeded(deadline):
            raise self._exceeded(deadline)

    def _schedule(self) -> None:
        """Look again after a while. Until a look has ended, it is not known how long to wait."""
        if self._look is None:
            if self._timer is not None:
                self._timer.cancel()
            seconds = max(_BUSY_SECONDS if self._charged else _IDLE_SECONDS, self._cost * _REST)
            self._timer = self._loop.call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._look = self._loop.create_task(self._check(), name=f"budget of {self._path}")

    async def _check(self) -> None:
        await self._sample()
        for deadline in self._charged:
            if self._is_exceeded(deadline):
                deadline.fail(self._exceeded(deadline))
        self._look = None
        if self._charged or self._limits.memory_bytes is not None:
            self._schedule()

    async def _sample(self) -> None:
        async with self._sampling:
            try:
                usage, self._cost = await self._meter.measure(self._connection, exact=False)
            except KernelError as error:  # there is too much to measure
                self._connection.kill(error)
                usage = None
            self._count(usage)

    def _count(self, usage: Usage | None) -> None:
        if usage is None:
            self._cpu_ms = 0.0
            return
        spent = usage.cpu_ms - self._cpu_ms if usage.cpu_ms >= self._cpu_ms else usage.cpu_ms  # less: a new process
        self._cpu_ms = usage.cpu_ms
        for deadline in self._charged if not usage.settling else ():
            deadline.cpu_ms += spent / len(self._charged)
        limit = self._limits.memory_bytes
        if limit is not None and usage.memory_bytes > limit and self._weighing is None:
            self._weighing = self._loop.create_task(self._weigh(limit), name=f"memory of {self._path}")

    async def _weigh(self, limit: int) -> None:
        """Measure exactly, so that shared memory counts once, and kill a module that is above its limit.

        It has to be above it twice: between `vfork` and `exec`, a process and its child are one memory.
        """
        cost = 0.0
        for killing in (False, True):
            usage, seconds = await self._meter.measure(self._connection, exact=True)
            cost += seconds
            if usage is None or usage.memory_bytes <= limit:
                break
            if killing:
                message = f"{self._path} used {usage.memory_bytes} bytes of memory; limits.memory_bytes is {limit}"
                self._connection.kill(Oom(message, details={"memory_bytes": usage.memory_bytes, "limit": limit}))
        await asyncio.sleep(min(cost * _REST, _LONGEST_REST))
        self._weighing = None

    def _is_exceeded(self, deadline: Deadline) -> bool:
        return self._limits.cpu_ms is not None and deadline.cpu_ms > self._limits.cpu_ms

    def _exceeded(self, deadline: Deadline) -> BudgetExceeded:
        used, limit = round(deadline.cpu_ms), self._limits.cpu_ms
        message = f"{self._path} used {used} ms of CPU time for one invocation; limits.cpu_ms is {limit}"
        return BudgetExceeded(message, details={"cpu_ms": used, "limit": limit})
