"""Budgets: the memory that a module's processes may hold together, and the CPU time that an invocation may cost.

Owns the samples and what follows from them. How a process tree is measured, and how it is killed, is the connection's.
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

_BUSY_SECONDS = 0.025  # between two samples while an invocation runs
_IDLE_SECONDS = 0.25  # and while none does


class Budget:
    """One module's budgets. It samples while a module with a memory budget lives, or an invocation runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, connection: Connection, limits: Limits) -> None:
        self._loop = loop
        self._path = path
        self._connection = connection
        self._limits = limits
        self._running: dict[Deadline, None] = {}
        self._cpu_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the memory from now on."""
        if self._limits.memory_bytes is not None:
            self._again()

    def close(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextlib.contextmanager
    def charged(self, deadline: Deadline) -> Iterator[None]:
        """Charge an invocation for the CPU time that the module spends meanwhile; those that run at once share it.

        Raises ``BudgetExceeded`` for a reply that came too dear.
        """
        self._sample()
        self._running[deadline] = None
        self.close()
        self._again()
        try:
            yield
            self._sample()
        finally:
            del self._running[deadline]
        if self._is_over(deadline):
            raise self._exceeded(deadline)

    def _again(self) -> None:
        self._timer = self._loop.call_later(_BUSY_SECONDS if self._running else _IDLE_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._sample()
        for deadline in self._running:
            if self._is_over(deadline):
                deadline.fail(self._exceeded(deadline))
        if self._running or self._limits.memory_bytes is not None:
            self._again()

    def _sample(self) -> None:
        usage = self._connection.usage(exact=False)
        if usage is None:
            self._cpu_ms = 0.0
            return
        spent = usage.cpu_ms - self._cpu_ms if usage.cpu_ms >= self._cpu_ms else usage.cpu_ms  # less: another process
        self._cpu_ms = usage.cpu_ms
        for deadline in self._running if not usage.settling else ():
            deadline.cpu_ms += spent / len(self._running)
        limit = self._limits.memory_bytes
        if limit is not None and usage.memory_bytes > limit:
            self._weigh(limit)

    def _weigh(self, limit: int) -> None:
        """Look again, exactly, before a module dies of memory that its processes only share."""
        usage = self._connection.usage(exact=True)
        if usage is not None and usage.memory_bytes > limit:
            message = f"{self._path} used {usage.memory_bytes} bytes of memory, of {limit} (limits.memory_bytes)"
            self._connection.kill(Oom(message, details={"memory_bytes": usage.memory_bytes, "limit": limit}))

    def _is_over(self, deadline: Deadline) -> bool:
        return self._limits.cpu_ms is not None and deadline.cpu_ms > self._limits.cpu_ms

    def _exceeded(self, deadline: Deadline) -> BudgetExceeded:
        used, limit = round(deadline.cpu_ms), self._limits.cpu_ms
        message = f"{self._path} used {used} ms of CPU time for one invocation, of {limit} (limits.cpu_ms)"
        return BudgetExceeded(message, details={"cpu_ms": used, "limit": limit})
