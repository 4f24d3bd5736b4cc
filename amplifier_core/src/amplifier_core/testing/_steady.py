"""What makes two runs equal: a clock that is read alike, and ids that are drawn alike."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SteadyClock:
    """A clock that moves by one step each time that it is read: two runs that do the same see the same times."""

    def __init__(self, start: float = 1_000_000_000.0, step: float = 0.001) -> None:
        self._now = start
        self._step = step

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        self._now += self._step
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self.time()


def seeded_entropy(seed: int) -> Callable[[int], bytes]:
    """Make an ``entropy`` for ``Kernel`` whose ids are the same in each run. Never use it outside of tests."""
    return random.Random(seed).randbytes  # noqa: S311 - predictable on purpose
