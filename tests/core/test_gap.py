"""The meters that other tests trust: a loop that is held, and memory that grows, are seen."""

import asyncio
import time

import pytest
from tests.gap import LoopGap, apart

MB = 2**20
pytestmark = pytest.mark.usefixtures("peak_of_memory")


async def hold(meters, seconds, size):
    """Hold the loop, and memory."""
    async with meters:
        time.sleep(seconds)
        return len(b"x" * size)


def test_what_holds_the_loop_and_memory_in_a_process_of_its_own_is_seen():
    cost = apart(hold, 0.3, 64 * MB)
    assert 0.25 < cost.gap < 2
    assert 60 * MB < cost.growth < 80 * MB
    assert cost.gap_cpu < cost.gap  # it slept
    assert cost.said == 64 * MB


async def test_a_loop_that_gives_turns_has_no_gap():
    async with LoopGap() as gap:
        for _ in range(20):
            await asyncio.sleep(0.01)
    assert gap.worst < 0.1
