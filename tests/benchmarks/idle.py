"""One call with 1, 100 and 1000 modules mounted, each a process; all but one are idle.

Each number has a process of its own: `idle.py MODULES SESSIONS` mounts, forks, and prints how many modules there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from modules import mount_fast_echo, mount_idle, text_of
from rounds import Contender, compare
from table import Goal, Row
from worker import Worker, serve

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rounds import Pace

_DESCRIPTORS = 4  # of a stdio module: three pipes, and one that shows that the process has ended
_SPARE = 64


async def rows(pace: Pace) -> list[Row]:
    """Measure the median of single calls, with few modules and with many."""
    wanted = (1, 2, 4) if pace.quick else (1, 100, 1000)
    with contextlib.ExitStack() as stack:
        workers = {count: stack.enter_context(having(count)) for count in wanted}
        samples = await compare([Contender(str(count), each.measure("p50")) for count, each in workers.items()], pace)
    return [
        Row.of(
            f"p50 of a call with {worker.ready} modules, to {wanted[0]}",
            samples,
            limit=str(wanted[0]),
            ours=str(count),
            goal=Goal(1.03),
            note="" if worker.ready == str(count) else f"this host runs no {count}",
        )
        for count, worker in workers.items()
        if count != wanted[0]
    ]


def having(modules: int, sessions: int = 1) -> Worker:
    """Give a process that has so many. Where the host starts no more, it has fewer modules, and says so."""
    return Worker(Path(__file__), str(modules), str(sessions))


async def work(wanted: int, sessions: int) -> None:
    """Mount, and fork; then measure in the last session, on request."""
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            idle = await mount_idle(session, affordable(wanted) - 1)
            path = await mount_fast_echo(session)
            forks = [await kernel.session.fork(session.session_id) for _ in range(sessions - 1)]
            call = functools.partial([session, *forks][-1].invoke, path, "echo", text_of(200))
            await serve({"p50": functools.partial(p50, call)}, ready=idle + 1)


async def p50(call: Callable[[], Awaitable[Any]], n: int) -> float:
    """Give the median of n calls, in seconds."""
    took = []
    for _ in range(n):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return median(took)


def affordable(modules: int) -> int:
    """Raise the limit of open files as far as the host allows, and give how many modules that is enough for."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
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
    asyncio.run(work(int(sys.argv[1]), int(sys.argv[2])))
