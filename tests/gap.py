"""Meters of what a hostile peer costs: the longest gap between two turns of the loop, and the growth of memory.

`apart` runs an async function of a test module in a process of its own, under both meters.
"""

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[1]
STEP = 0.005
"""Seconds between two beats of a `LoopGap`."""
_M_MMAP_THRESHOLD, _MEGABYTE = -3, 1 << 20


class LoopGap:
    """The longest time, in seconds, for which the loop gave nobody a turn: ``async with LoopGap() as gap``.

    ``worst`` is by the clock, without the time for which a busy machine kept the thread from running, where the system
    tells that time. ``worst_cpu`` is the CPU time of the process in such a gap: it is the same on a busy machine, and
    does not see what waits.
    """

    def __init__(self) -> None:
        self.worst = self.worst_cpu = 0.0

    async def __aenter__(self) -> Self:
        self._last, self._last_cpu = _ran(), time.process_time()
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._note()  # what blocks up to the end counts as well
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(STEP)
            self._note()

    def _note(self) -> None:
        now, cpu = _ran(), time.process_time()
        self.worst = max(self.worst, now - self._last - STEP)
        self.worst_cpu = max(self.worst_cpu, cpu - self._last_cpu)
        self._last, self._last_cpu = now, cpu


class Growth:
    """By how many bytes the resident memory was larger at its peak than at the beginning; set at the end."""

    bytes = 0


@contextlib.contextmanager
def growth_of_rss():
    """Measure by how much the resident memory of this process grows, at its peak: ``with growth_of_rss() as growth``.

    In a process that has done other things, freed memory that is used again hides growth: see `apart`. What glibc would
    keep of large blocks that were freed is no growth: it gives them back at once from now on.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MEGABYTE)
    growth = Growth()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = _status("VmRSS")
    try:
        yield growth
    finally:
        growth.bytes = max(0, _status("VmHWM") - before)


class Cost(NamedTuple):
    """What a function that ran apart cost, and what it returned."""

    gap: float
    gap_cpu: float
    growth: int
    said: Any


def apart(function, *args, seconds=60):
    """Run an async function of a test module, with arguments that are JSON, in a process of its own; give its `Cost`.

    The function gets `Meters` as its first argument, and measures what it does in ``async with meters:``.
    """
    command = [sys.executable, "-m", "tests.gap", f"{function.__module__}:{function.__qualname__}", json.dumps(args)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


class Meters:
    """Both meters at once: ``async with meters``, once."""

    def __init__(self) -> None:
        self.gap = LoopGap()
        self.growth = Growth()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.gap)
        self.growth = self._stack.enter_context(growth_of_rss())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def _ran() -> float:
    """Give the monotonic time, without the time for which this thread was ready and another process had the CPU."""
    with contextlib.suppress(OSError):
        return time.monotonic() - int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    return time.monotonic()


def _status(name: str) -> int:
    """Give a size of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


async def _measure(name: str, args: list[Any]) -> Cost:
    module, _, function = name.partition(":")
    meters = Meters()
    said = await getattr(importlib.import_module(module), function)(meters, *args)
    return Cost(meters.gap.worst, meters.gap.worst_cpu, meters.growth.bytes, said)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measure(sys.argv[1], json.loads(sys.argv[2])))))
    sys.stdout.flush()
    os._exit(0)  # what a hostile peer left in threads is no matter here
