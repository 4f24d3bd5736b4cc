"""Calls over STDIO: the kernel beside blocking reads and writes, and beside other clients.

The peers are a client written by hand and the client of the MCP SDK. The kernel also runs on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
from modules import FAST_ECHO, mount_fast_echo, text_of
from rounds import Contender, at_once, blocking, compare, in_batches, sequential
from table import Goal, Row
from worker import Worker

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from rounds import Pace

    Call = Callable[..., Any]

CALLERS = 64
_LARGE = (("stdio, 64 KiB", 64 * 1024, 1.45), ("stdio, 1 MiB", 1024 * 1024, 1.2))
_HERE = Path(__file__).parent
_READ = 64 * 1024


async def rows(pace: Pace) -> list[Row]:
    """Measure messages of three sizes, one after another, and the small one from many tasks at once."""
    with tempfile.TemporaryDirectory() as folder, Blocking() as limit:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel, stream_client() as streams:
            session = await kernel.session.create(Plan(goal="measure"))
            ours = functools.partial(session.invoke, await mount_fast_echo(session), "echo")
            return [
                *await _small(limit, ours, streams, pace),
                *[await _large(*each, limit, ours, streams, pace) for each in _LARGE],
            ]


async def _small(limit: Blocking, ours: Call, streams: Call, pace: Pace) -> list[Row]:
    args = text_of(200)
    ours, streams = functools.partial(ours, args), functools.partial(streams, args)
    batch = in_batches(functools.partial(limit.calls, args, CALLERS), CALLERS)
    with Worker(_HERE / "mcp_client.py") as mcp, _uvloop() as uvloop:
        samples = await compare(
            (
                Contender("limit", blocking(functools.partial(limit.call, args))),
                Contender("ours", sequential(ours)),
                Contender("streams", sequential(streams)),
                Contender("mcp", mcp.measure("sequential")),
                *([Contender("uvloop", uvloop.measure("sequential"))] if uvloop else []),
                Contender("ours cpu", sequential(ours, time.process_time)),
                Contender("mcp cpu", mcp.measure("cpu")),
                Contender("ours cpu at once", at_once(ours, CALLERS, time.process_time), step=CALLERS),
                Contender("mcp cpu at once", mcp.measure("cpu_at_once"), step=CALLERS),
                Contender("limit at once", batch, step=CALLERS),
                Contender("ours at once", at_once(ours, CALLERS), step=CALLERS),
                Contender("streams at once", at_once(streams, CALLERS), step=CALLERS),
                Contender("mcp at once", mcp.measure("at_once"), step=CALLERS),
                *([Contender("uvloop at once", uvloop.measure("at_once"), step=CALLERS)] if uvloop else []),
            ),
            pace,
        )
    return list(_small_rows(samples))


def _small_rows(samples: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    one, many = "stdio, 200 B, sequential", f"stdio, 200 B, {CALLERS} at once, per call"
    yield Row.of(one, samples, peers={"StreamReader": "streams", "mcp client": "mcp"}, goal=Goal(3.3))
    if "uvloop" in samples:
        yield Row.of(f"{one}, on uvloop", samples, ours="uvloop", goal=Goal(2.8))
    peers = {"StreamReader": "streams at once", "mcp client": "mcp at once"}
    yield Row.of(many, samples, limit="limit at once", ours="ours at once", peers=peers, goal=Goal(7.5))
    if "uvloop" in samples:
        yield Row.of(f"{many}, on uvloop", samples, limit="limit at once", ours="uvloop at once")
    for path, what, goal in (
        ("CPU in the client, 200 B, sequential", "cpu", None),
        (f"CPU in the client, 200 B, {CALLERS} at once", "cpu at once", Goal(1 / 25)),
        (f"time of a call, 200 B, {CALLERS} at once", "at once", Goal(1 / 40)),
    ):
        to_mcp = f"{path}, to the mcp client"
        yield Row.of(to_mcp, samples, limit=f"mcp {what}", ours=f"ours {what}", goal=goal)


def _uvloop() -> contextlib.AbstractContextManager[Worker | None]:
    """Give the kernel on uvloop, where that is installed: there is none for Windows."""
    return Worker(_HERE / "on_uvloop.py") if find_spec("uvloop") else contextlib.nullcontext()


async def _large(path: str, size: int, goal: float, limit: Blocking, ours: Call, streams: Call, pace: Pace) -> Row:
    args = text_of(size)
    assert limit.call(args)["result"] == await ours(args) == (await streams(args))["result"] == args
    samples = await compare(
        (
            Contender("limit", blocking(functools.partial(limit.call, args))),
            Contender("ours", sequential(functools.partial(ours, args))),
            Contender("streams", sequential(functools.partial(streams, args))),
        ),
        pace,
    )
    return Row.of(path, samples, peers={"StreamReader": "streams"}, goal=Goal(goal))


class Blocking:
    """The limit: a client that does only what each client must do."""

    def __init__(self, command: Sequence[str] = FAST_ECHO) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def call(self, args: object) -> Any:
        """Call the echo."""
        return self.ask(_line(args))

    def ask(self, line: bytes) -> Any:
        """Send one request and wait for its reply."""
        os.write(self._stdin, line)
        data = os.read(self._stdout, _READ)
        if not data.endswith(b"\n"):
            parts = [data]
            while not parts[-1].endswith(b"\n"):
                parts.append(os.read(self._stdout, _READ))
            data = b"".join(parts)
        return orjson.loads(data)

    def calls(self, args: object, count: int) -> list[Any]:
        """Send so many requests in one write, and wait for all replies."""
        os.write(self._stdin, b"".join([_line(args) for _ in range(count)]))
        data = b""
        while data.count(b"\n") < count:
            data += os.read(self._stdout, _READ)
        return [orjson.loads(line) for line in data.splitlines()]

    def stream(self, line: bytes) -> int:
        """Send one request, read its chunks and its reply, and give the number of chunks."""
        os.write(self._stdin, line)
        chunks, unfinished = 0, b""
        while True:
            *lines, unfinished = (unfinished + os.read(self._stdout, _READ)).split(b"\n")
            for text in lines:
                if "chunk" not in orjson.loads(text):
                    return chunks
                chunks += 1


def _line(args: object) -> bytes:
    request = {"id": "r1", "method": "invoke", "params": {"op": "echo", "args": args}}
    return orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)


@contextlib.asynccontextmanager
async def stream_client() -> AsyncIterator[Call]:
    """Give a peer written by hand, on asyncio's streams and the standard json: no deadline, no log."""
    process = await asyncio.create_subprocess_exec(
        *FAST_ECHO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=8 * 1024 * 1024
    )
    reader, writer = process.stdout, process.stdin
    assert reader is not None
    assert writer is not None
    waiting: dict[str, asyncio.Future[Any]] = {}
    count = 0

    async def read() -> None:
        while line := await reader.readline():
            reply = json.loads(line)
            waiting.pop(reply["id"]).set_result(reply)

    async def call(args: object) -> Any:
        nonlocal count
        count += 1
        request_id = f"r{count}"
        waiting[request_id] = future = asyncio.get_running_loop().create_future()
        request = {"id": request_id, "method": "invoke", "params": {"op": "echo", "args": args}}
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        return await future

    reading = asyncio.create_task(read())
    yield call
    writer.close()
    await reading
    await process.wait()
