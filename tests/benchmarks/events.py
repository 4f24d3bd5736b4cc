"""One event: made, encoded and on disk, without and with an observer, beside a ready dict and one write."""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rounds import Contender, blocking, compare
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Measure, Pace

    from amplifier_core import Event

_EVENT = "artifact:write"
_DATA = {"path": "out/report.txt", "bytes": 4096, "tags": ["draft", "text"]}
_AT_MOST = 1000  # the queue of an observer holds 1024; events beyond that would be dropped


async def rows(pace: Pace) -> list[Row]:
    """Measure one event, without and with an observer."""
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            alone = await kernel.session.create(Plan(goal="measure"))
            watched = await kernel.session.create(Plan(goal="measure"))
            observer = Observer()
            await watched.register_hook(_EVENT, observer)
            emit = functools.partial(alone.emit, _EVENT, _DATA)
            emit()
            assert kernel.log_path is not None
            ready = orjson.loads(kernel.log_path.read_bytes().splitlines()[-1])
            descriptor = os.open(Path(folder) / "limit.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

            def write() -> None:
                os.write(descriptor, orjson.dumps(ready, option=orjson.OPT_APPEND_NEWLINE))

            samples = await compare(
                (
                    Contender("limit", blocking(write), at_most=_AT_MOST),
                    Contender("ours", blocking(emit), at_most=_AT_MOST),
                    Contender("told", observer.after(functools.partial(watched.emit, _EVENT, _DATA)), at_most=_AT_MOST),
                ),
                pace,
            )
            os.close(descriptor)
    return [
        Row.of("one event on disk", samples),
        Row.of("one event on disk, offered to an observer", samples, ours="told", goal=Goal(3.2)),
    ]


class Observer:
    """An observer that counts down."""

    def __init__(self) -> None:
        self._expected = 0
        self._all = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        self._expected -= 1
        if not self._expected:
            self._all.set()

    def after(self, emit: Any) -> Measure:
        """Measure only emitting. Afterwards, untimed, let the observer get all events."""
        measure_emitting = blocking(emit)

        async def measure(n: int) -> float:
            self._expected = n
            self._all.clear()
            seconds = await measure_emitting(n)
            await self._all.wait()
            return seconds

        return measure
