"""One call with 1, 100 and 1000 modules mounted, all of them real processes that are idle but one.

Each number has a process of its own, which this file is too: `idle.py COUNT` mounts, prints how many there are, and
for each number of calls that it reads prints the median of what they took.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from modules import mount_fast_echo, mount_idle, text_of
from rounds import Contender, compare
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rounds import Pace

_DESCRIPTORS = 4  # of a stdio module: three pipes and what tells its end
_SPARE = 64


async def rows(pace: Pace) -> list[Row]:
    """Measure the median of single calls, with few modules and with many."""
    with contextlib.ExitStack() as stack:
        one, *many = (stack.enter_context(Worker(count)) for count in ((1, 2, 4) if pace.quick else (1, 100, 1000)))
        contenders = (Contender("limit", one.measure), *(Contender(str(more.wanted), more.measure) for more in many))
        samples = await compare(contenders, pace)
    return [
        Row.of(
            f"p50 of a call, {worker.mounted} modules mounted, to {one.mounted}",
            samples,
            ours=str(worker.wanted),
            goal=Goal(1.03),
            note="" if worker.mounted == worker.wanted else f"this host runs no {worker.wanted}",
        )
        for worker in many
    ]


class Worker:
    """A process that has so many modules mounted."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.mounted = int(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    async def measure(self, n: int) -> float:
        """Have n calls made, and give the median in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


async def work(wanted: int) -> None:
    """Mount, then measure for whoever asks on stdin; the loop rests meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            idle = await mount_idle(session, affordable(wanted) - 1)
            call = functools.partial(session.invoke, await mount_fast_echo(session), "echo", text_of(200))
            print(idle + 1, flush=True)
            for line in sys.stdin:
                print(await p50(call, int(line)), flush=True)


async def p50(call: Callable[[], Awaitable[Any]], n: int) -> float:
    """Give the median of n calls, in seconds."""
    took = []
    for _ in range(n):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return median(took)


def affordable(modules: int) -> int:
    """Raise the limit of open files as far as the host lets us, and give how many modules that is enough for."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return modules
    wanted = modules * _DESCRIPTORS + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        modules = min(modules, (soft - _SPARE) // _DESCRIPTORS)
    return modules


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1])))
