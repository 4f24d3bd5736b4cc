"""Calls of a tool of MCP: through the kernel, beside the SDK's own client, to the same kind of server."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp import Client, StdioServerParameters
from modules import descriptor, text_of
from rounds import Contender, at_once, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rounds import Pace

    from amplifier_core import Session

_FAST = (sys.executable, str(Path(__file__).with_name("fast_mcp.py")))
_CALLERS = 20
_LARGE = 1024 * 1024
_GOAL = Goal(1.15)


async def rows(pace: Pace) -> list[Row]:
    """Measure both transports: one call after the other, some at once, and large ones."""
    with tempfile.TemporaryDirectory() as folder, _server() as url:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            local = StdioServerParameters(command=_FAST[0], args=[_FAST[1]])
            stdio = {"type": "mcp", "command": list(_FAST)}
            return [
                *await _rows("mcp stdio", session, stdio, local, pace),
                *await _rows("mcp http", session, {"type": "mcp", "url": url}, url, pace),
            ]


async def _rows(
    path: str, session: Session, transport: dict[str, Any], server: StdioServerParameters | str, pace: Pace
) -> list[Row]:
    name = path.replace(" ", "-")
    trusted = "command" in transport
    mounted = (await session.mount("/mnt/tools", descriptor(name, transport), trusted=trusted))["path"]
    async with Client(server) as client:
        contenders = []
        for size, callers in ((200, 1), (200, _CALLERS), (_LARGE, 1)):
            args = text_of(size)
            ours = functools.partial(session.invoke, mounted, "echo", args)
            limit = functools.partial(client.call_tool, "echo", args)
            for who, call in (("limit", limit), ("ours", ours)):
                measure = sequential(call) if callers == 1 else at_once(call, callers)
                contenders.append(Contender(f"{who} {size} {callers}", measure, step=callers))
        samples = await compare(contenders, pace)
    return [
        Row.of(f"{path}, {shown}", samples, limit=f"limit {key}", ours=f"ours {key}", goal=_GOAL)
        for shown, key in (
            ("200 B, sequential", "200 1"),
            (f"200 B, {_CALLERS} at once, per call", f"200 {_CALLERS}"),
            ("1 MiB", f"{_LARGE} 1"),
        )
    ]


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """Give the URL of a server in a process of its own."""
    with subprocess.Popen([*_FAST, "http"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.communicate()
