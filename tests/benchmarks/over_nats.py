"""Calls over NATS: the kernel beside a bare request of nats-py, to one worker."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sysconfig
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from modules import FAST_NATS, descriptor, text_of
from rounds import Contender, at_once, compare, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Pace

_SEQUENTIAL, _AT_ONCE = "NATS, 200 B, sequential", "NATS, 200 B, 64 at once, per request"
_CALLERS = 64
_ARGS = text_of(200)


async def rows(pace: Pace) -> list[Row]:
    """Measure one request after another, and many at once. Without the transport or a server give nothing."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if not entry_points(group="amplifier_core.transports", name="nats") or not found:
        note = "amplifier-transport-nats or nats-server is not installed"
        return [Row(path=path, note=note) for path in (_SEQUENTIAL, _AT_ONCE)]
    from nats.aio.client import Client  # noqa: PLC0415 - comes with the transport

    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(FAST_NATS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        transport = {"type": "nats", "servers": address, "subject": "echo", "tls": False}
        client = Client()
        await client.connect(address)
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            mounted = await session.mount("/mnt/tools", descriptor("echo", transport))
            ours = functools.partial(session.invoke, mounted["path"], "echo", _ARGS)

            async def bare() -> Any:
                asked = orjson.dumps({"op": "echo", "args": _ARGS})
                return orjson.loads((await client.request("echo.invoke", asked, timeout=10)).data)

            assert await ours() == (await bare())["result"] == _ARGS
            samples = await compare(
                (
                    Contender("limit", sequential(bare)),
                    Contender("ours", sequential(ours)),
                    Contender("limit at once", at_once(bare, _CALLERS), step=_CALLERS),
                    Contender("ours at once", at_once(ours, _CALLERS), step=_CALLERS),
                ),
                pace,
            )
        await client.close()
        process.communicate()
    return [
        Row.of(_SEQUENTIAL, samples, goal=Goal(1.5)),
        Row.of(_AT_ONCE, samples, limit="limit at once", ours="ours at once", goal=Goal(1.5)),
    ]
