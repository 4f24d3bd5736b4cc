"""What a call pays for being recorded: `Kernel(recording=True)` beside the same kernel without, each with its log."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from modules import mount_fast_echo, text_of
from rounds import Contender, at_once, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Pace

_CALLERS = 64
_ARGS = text_of(200)


async def rows(pace: Pace) -> list[Row]:
    """Measure one call after another, and many at once. The limit is a call that is not recorded."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Kernel(event_log=Path(folder) / "plain.jsonl")
        recording = Kernel(event_log=Path(folder) / "recorded.jsonl", recording=True)
        contenders = []
        async with plain, recording:
            for name, kernel in (("limit", plain), ("ours", recording)):
                session = await kernel.session.create(Plan(goal="measure"))
                call = functools.partial(session.invoke, await mount_fast_echo(session), "echo", _ARGS)
                contenders += [
                    Contender(name, sequential(call)),
                    Contender(f"{name} at once", at_once(call, _CALLERS), step=_CALLERS),
                ]
            samples = await compare(contenders, pace)
    return [
        Row.of("a recorded call, 200 B, sequential", samples, goal=Goal(1.5)),
        Row.of(
            "a recorded call, 200 B, 64 at once, per call",
            samples,
            limit="limit at once",
            ours="ours at once",
            goal=Goal(1.5),
        ),
    ]
