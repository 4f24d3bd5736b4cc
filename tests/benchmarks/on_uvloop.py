"""The kernel on another event loop: an echo over STDIO, with asyncio's interface on libuv."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import uvloop
from modules import mount_fast_echo, text_of
from over_stdio import CALLERS
from rounds import at_once, sequential
from worker import serve

from amplifier_core import Kernel, Plan


async def main() -> None:
    """Mount, then measure on request."""
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            call = functools.partial(session.invoke, await mount_fast_echo(session), "echo", text_of(200))
            await serve({"sequential": sequential(call), "at_once": at_once(call, CALLERS)})


if __name__ == "__main__":
    uvloop.run(main())
