"""Budgets: the memory that a module's processes may hold together, and the CPU time that an invocation may cost.

Owns the samples and the checks against the limits. The connection measures the process tree, and kills it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import BudgetExceeded, Oom

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from amplifier_core._protocol.descriptor import Limits
    from amplifier_core.hookspecs import Connection

    from .deadline import Deadline

_BUSY_SECONDS = 0.025  # between two samples, while an invocation runs
_IDLE_SECONDS = 0.25  # between two samples, while none runs


class Budget:
    """One module's budgets. Samples during each invocation and, with a memory budget, between invocations too."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, connection: Connection, limits: Limits) -> None:
        self._loop = loop
        self._path = path
        self._connection = connection
        self._limits = limits
        self._charged: dict[Deadline, None] = {}
        self._cpu_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch the memory, if it has a limit."""
        if self._limits.memory_bytes is not None:
            self._schedule()

    def close(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextlib.contextmanager
    def charged(self, deadline: Deadline) -> Iterator[None]:
        """Charge an invocation for the CPU time that the module spends during the ``with`` block.

        Invocations that run at the same time share it equally. Raises ``BudgetExceeded`` at the end of the block if the
        invocation spent more than ``limits.cpu_ms``.
        """
        self._sample()
        self._charged[deadline] = None
        self.close()
        self._schedule()
        try:
            yield
            self._sample()
        finally:
            del self._charged[deadline]
        if self._is_exceeded(deadline):
            raise self._exceeded(deadline)

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(_BUSY_SECONDS if self._charged else _IDLE_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._sample()
        for deadline in self._charged:
            if self._is_exceeded(deadline):
                deadline.fail(self._exceeded(deadline))
        if self._charged or self._limits.memory_bytes is not None:
            self._schedule()

    def _sample(self) -> None:
        usage = self._connection.usage(exact=False)
        if usage is None:
            self._cpu_ms = 0.0
            return
        spent = usage.cpu_ms - self._cpu_ms if usage.cpu_ms >= self._cpu_ms else usage.cpu_ms  # less: a new process
        self._cpu_ms = usage.cpu_ms
        for deadline in self._charged if not usage.settling else ():
            deadline.cpu_ms += spent / len(self._charged)
        limit = self._limits.memory_bytes
        if limit is not None and usage.memory_bytes > limit:
            self._check_memory(limit)

    def _check_memory(self, limit: int) -> None:
        """Measure exactly, so that shared memory counts once, and kill a module that is above its limit."""
        usage = self._connection.usage(exact=True)
        if usage is not None and usage.memory_bytes > limit:
            message = f"{self._path} used {usage.memory_bytes} bytes of memory; limits.memory_bytes is {limit}"
            self._connection.kill(Oom(message, details={"memory_bytes": usage.memory_bytes, "limit": limit}))

    def _is_exceeded(self, deadline: Deadline) -> bool:
        return self._limits.cpu_ms is not None and deadline.cpu_ms > self._limits.cpu_ms

    def _exceeded(self, deadline: Deadline) -> BudgetExceeded:
        used, limit = round(deadline.cpu_ms), self._limits.cpu_ms
        message = f"{self._path} used {used} ms of CPU time for one invocation; limits.cpu_ms is {limit}"
        return BudgetExceeded(message, details={"cpu_ms": used, "limit": limit})
