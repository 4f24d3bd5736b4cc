"""The kernel and its limit on one Python: calls over STDIO, measured on request."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from modules import mount_fast_echo, text_of
from nested import table_of
from over_stdio import CALLERS, Blocking
from place import python
from rounds import at_once, blocking, in_batches, sequential
from worker import serve

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Measure

_SMALL, _MANY, _LARGE = "stdio, 200 B, sequential", f"stdio, 200 B, {CALLERS} at once, per call", "stdio, 64 KiB"
_ROWS = "stdio, 500 rows there and back: floats and None"
CALLS = {_SMALL: 1, _MANY: CALLERS, _LARGE: 1, _ROWS: 1}
"""What is measured, and how many calls at a time."""


async def main() -> None:
    """Mount, then measure on request."""
    small, large, rows = text_of(200), text_of(64 * 1024), table_of("floats and None")
    with tempfile.TemporaryDirectory() as folder, Blocking() as limit:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            call = functools.partial(session.invoke, await mount_fast_echo(session), "echo")
            measures: dict[str, Measure] = {
                f"limit {_MANY}": in_batches(functools.partial(limit.calls, small, CALLERS), CALLERS),
                f"ours {_MANY}": at_once(functools.partial(call, small), CALLERS),
            }
            for name, args in ((_SMALL, small), (_LARGE, large), (_ROWS, rows)):
                measures[f"limit {name}"] = blocking(functools.partial(limit.call, args))
                measures[f"ours {name}"] = sequential(functools.partial(call, args))
            await serve({name.replace(" ", "_"): measure for name, measure in measures.items()}, python())


if __name__ == "__main__":
    asyncio.run(main())
