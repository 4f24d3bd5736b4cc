"""Turns of the event loop, for work on what a server sent.

Owns when a task has held the loop for long enough. It does not know what the work is.
"""

from __future__ import annotations

import asyncio
from time import monotonic

_SLICE_SECONDS = 0.01


class Turn:
    """The time since a task last gave the others a turn. Most tasks never need one."""

    def __init__(self) -> None:
        self._since = monotonic()

    async def share(self) -> None:
        """Give the others a turn, deadlines included, if this task has held the loop for 10 ms."""
        if monotonic() - self._since > _SLICE_SECONDS:
            await asyncio.sleep(0)
            self._since = monotonic()
