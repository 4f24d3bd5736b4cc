"""How cost grows with the number of modules, calls, events and sessions, and with size: `-s bench-growth`.

A series has a point for each number or size. Work that is done once for each thing should cost the same each time.
Work that is done beside many other things should cost the same as without them. The table has the differences.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import attrs
import plots
from idle import affordable, having
from modules import FAST_ECHO, descriptor, mount_fast_echo, mount_idle, text_of
from over_stdio import Blocking
from place import pin, place
from plots import Plot, Series
from rounds import Contender, Pace, at_once, blocking, compare, sequential

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from amplifier_core import Session

_MIB = 1024 * 1024
_LARGEST = 256 * _MIB


@attrs.frozen
class Sizes:
    """The numbers and sizes of a run."""

    modules: tuple[int, ...] = (1, 10, 100, 1000)
    calls: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    events: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    sessions: tuple[int, ...] = (10, 100, 1000, 10_000)
    bytes: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


_QUICK = Sizes((1, 2), (1, 4), (10, 100), (1, 10), (1000, 100_000))


def main() -> None:
    """Measure, print a table of each plot, and draw them."""
    parser = argparse.ArgumentParser(description="Measure how the kernel's cost grows.")
    parser.add_argument("plots", nargs="*", metavar="PLOT", help=f"what to measure: {', '.join(PLOTS)}; all if none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them there")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures mean nothing")
    options = parser.parse_args()
    if unknown := set(options.plots) - set(PLOTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    sizes, pace = (_QUICK, Pace(1, 0.001, quick=True)) if options.quick else (Sizes(), Pace(9, 0.05))
    where = f"{place(None if options.quick else pin())}; medians of {pace.rounds} rounds"
    found: list[Plot] = []
    for name in options.plots or PLOTS:
        print(f"{name} …", file=sys.stderr, flush=True)
        gc.collect()
        found += asyncio.run(PLOTS[name](sizes, pace))
    print(where, *map(plots.text, found), sep="\n\n")
    if options.json:
        figures = {"where": where, "plots": [attrs.asdict(plot) for plot in found]}
        options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    if options.svg:
        plots.draw(found, where, options.svg)


@asynccontextmanager
async def _session() -> AsyncIterator[tuple[Kernel, Session]]:
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            yield kernel, await kernel.session.create(Plan(goal="measure"))


async def _modules(sizes: Sizes, pace: Pace) -> list[Plot]:
    """Mount so many modules, and call one of so many."""
    mounted = []
    for count in sizes.modules:
        took = [await _mounting(count) for _ in range(1 if pace.quick or count > 100 else 5)]
        mounted.append((float(count), median(took)))
    return [
        Plot("N modules mounted, in all", (Series("", tuple(mounted)),), each=True),
        Plot("a call, N modules mounted", (await _called({(n, 1): n for n in sizes.modules}, pace),)),
    ]


async def _mounting(count: int) -> float:
    async with _session() as (_, session):
        await mount_fast_echo(session)  # the first mount of a kernel loads modules of Python
        began = time.perf_counter()
        await mount_idle(session, affordable(count))
        return time.perf_counter() - began


async def _called(having_so_many: Mapping[tuple[int, int], int], pace: Pace) -> Series:
    """Call with so many modules and sessions around, in a process for each."""
    with ExitStack() as stack:
        contenders = [
            Contender(str(n), stack.enter_context(having(*wanted)).measure("p50"))
            for wanted, n in having_so_many.items()
        ]
        samples = await compare(contenders, pace)
    return Series("", tuple((float(n), median(samples[str(n)])) for n in having_so_many.values()))


async def _calls(sizes: Sizes, pace: Pace) -> list[Plot]:
    """Make so many invocations at once."""
    async with _session() as (_, session):
        call = functools.partial(session.invoke, await mount_fast_echo(session), "echo", text_of(200))
        samples = await compare([Contender(str(n), at_once(call, n), step=n) for n in sizes.calls], pace)
    points = tuple((float(n), n * median(samples[str(n)])) for n in sizes.calls)
    return [Plot("N calls at once, in all", (Series("", points),), each=True)]


async def _events(sizes: Sizes, _pace: Pace) -> list[Plot]:
    """Emit so many events, one after the other, into one log."""
    points = []
    async with _session() as (_, session):
        began = time.perf_counter()
        for n in range(1, sizes.events[-1] + 1):
            session.emit("artifact:write", {"n": n})
            if n in sizes.events:
                points.append((float(n), time.perf_counter() - began))
    return [Plot("N events on disk, in all", (Series("", tuple(points)),), each=True)]


async def _sessions(sizes: Sizes, pace: Pace) -> list[Plot]:
    """Fork a session so often, and end all forks; call from the last of so many."""
    forked, ended = [], []
    for size in sizes.sessions:
        took = [await _living(size) for _ in range(1 if pace.quick or size > 1000 else 5)]
        forked.append((float(size), median(fork for fork, _ in took)))
        ended.append((float(size), median(end for _, end in took)))
    return [
        Plot("N sessions forked, in all", (Series("", tuple(forked)),), each=True),
        Plot("N sessions ended, in all", (Series("", tuple(ended)),), each=True),
        Plot("a call, N sessions open", (await _called({(1, n): n for n in sizes.sessions}, pace),)),
    ]


async def _living(size: int) -> tuple[float, float]:
    async with _session() as (kernel, session):
        await mount_fast_echo(session)
        began = time.perf_counter()
        forks = [await kernel.session.fork(session.session_id) for _ in range(size)]
        between = time.perf_counter()
        for each in forks:
            await kernel.session.end(each.session_id)
        return between - began, time.perf_counter() - between


async def _messages(sizes: Sizes, pace: Pace) -> list[Plot]:
    """Call the echo with so many bytes, through the kernel and through the limit."""
    ours, limit = [], []
    async with _session() as (_, session):
        echo = {
            **descriptor("echo", {"type": "stdio", "command": [*FAST_ECHO, "echo"]}),
            "limits": {"message_bytes": _LARGEST},
        }
        path = (await session.mount("/mnt/tools", echo, trusted=True))["path"]
        with Blocking() as pipe:
            for size in sizes.bytes:
                args = text_of(size)
                samples = await _echoing(
                    functools.partial(session.invoke, path, "echo", args), functools.partial(pipe.call, args), pace
                )
                ours.append((float(size), median(samples["ours"])))
                limit.append((float(size), median(samples["limit"])))
    series = (Series("kernel", tuple(ours)), Series("pipe", tuple(limit), look="peer"))
    return [Plot("N bytes there and back", series, each=True)]


async def _echoing(ours: Callable[[], Awaitable[Any]], limit: Callable[[], Any], pace: Pace) -> dict[str, list[float]]:
    return await compare((Contender("ours", sequential(ours)), Contender("limit", blocking(limit))), pace)


PLOTS = {"modules": _modules, "calls": _calls, "events": _events, "sessions": _sessions, "messages": _messages}

if __name__ == "__main__":
    main()
