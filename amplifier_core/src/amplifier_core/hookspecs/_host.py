"""The host, as connections see it: what the connections of one kernel share.

Owns the shared objects. It does not know the isolation of the modules: the kernel does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLOSE_SECONDS = 5.0


class Host:
    """What one kernel offers to its connections. A program that opens connections without a kernel makes its own.

    Such a program closes its connections first, then the host: ``async with Host() as host``.
    """

    def __init__(self) -> None:
        self._shared: dict[Callable[[], Any], Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def shared(self, make: Callable[[], T]) -> T:
        """Give what ``make`` makes. The first call makes it, later calls give the same object.

        Its ``async close()`` is called when the host is closed, and has five seconds.
        """
        if make not in self._shared:
            self._shared[make] = make()
        shared: T = self._shared[make]
        return shared

    async def close(self) -> None:
        """Close what is shared. Never raises. Idempotent."""
        shared, self._shared = list(self._shared.values()), {}
        for each in shared:
            try:
                with contextlib.suppress(Exception):  # foreign code, and there is nothing left to undo
                    await asyncio.wait_for(each.close(), _CLOSE_SECONDS)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():  # else it cancelled itself
                    raise
