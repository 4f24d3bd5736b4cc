"""Rounds: contenders take turns, so that a disturbance of the machine disturbs all alike. Figures are medians.

It owns how time is measured, not what is measured.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Measure = Callable[[int], Awaitable[float]]


@attrs.frozen
class Pace:
    """How long to measure: so many rounds, in each of which a contender works for so many seconds."""

    rounds: int
    seconds: float
    quick: bool = False


@attrs.frozen
class Contender:
    """Something that is measured: ``measure(n)`` does it n times and gives the seconds that one took.

    n is a multiple of ``step``, and no more than ``at_most``.
    """

    name: str
    measure: Measure
    step: int = 1
    at_most: int = 1_000_000


async def compare(contenders: Sequence[Contender], pace: Pace) -> dict[str, list[float]]:
    """Give the seconds that one call of each contender took, round by round, under its name."""
    counts = [await _calibrate(contender, pace.seconds) for contender in contenders]
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(pace.rounds):
        for contender, n in zip(contenders, counts, strict=True):
            samples[contender.name].append(await contender.measure(n))
    return samples


async def _calibrate(contender: Contender, seconds: float) -> int:
    """Find how many calls fill a round. The calls that it makes for that are the warm-up."""
    n = contender.step
    for part in (0.1, 0.3, 1.0):
        one = await contender.measure(n)
        n = min(contender.at_most, max(1, round(part * seconds / one / contender.step)) * contender.step)
    return n


def blocking(call: Callable[[], object]) -> Measure:
    """Measure calls that block."""

    async def measure(n: int) -> float:
        began = time.perf_counter()
        for _ in range(n):
            call()
        return (time.perf_counter() - began) / n

    return measure


def in_batches(call: Callable[[], object], size: int) -> Measure:
    """Measure calls that block and do so many things at once, per thing."""
    return per_thing(blocking(call), size)


def per_thing(measure_batches: Measure, size: int) -> Measure:
    """Measure calls that do so many things each, per thing."""

    async def measure(n: int) -> float:
        return await measure_batches(n // size) / size

    return measure


def sequential(call: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.perf_counter) -> Measure:
    """Measure calls of one task, each awaited before the next."""

    async def measure(n: int) -> float:
        began = clock()
        for _ in range(n):
            await call()
        return (clock() - began) / n

    return measure


def at_once(
    call: Callable[[], Awaitable[Any]], callers: int, clock: Callable[[], float] = time.perf_counter
) -> Measure:
    """Measure calls of so many tasks at once, per call."""

    async def caller(n: int) -> None:
        for _ in range(n):
            await call()

    async def measure(n: int) -> float:
        began = clock()
        await asyncio.gather(*(caller(n // callers) for _ in range(callers)))
        return (clock() - began) / n

    return measure
