"""Modules that call the kernel, and modules that stream: a turn, a nested call, a chunk, and an open stream's memory.

The limit is a kernel of a few lines: it blocks, checks nothing, records nothing and bounds nothing.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from modules import FAST_CALLER, FAST_ECHO, mount_fast_callers, mount_fast_echo, text_of
from over_stdio import Blocking
from rounds import Contender, blocking, compare, per_thing, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rounds import Pace

    from amplifier_core import Session

_DEPTH = 3
_TEXT = text_of(200)
_TRIVIAL = {"name": "mounts", "args": {"path": "/mnt/context"}}  # where nothing is


async def rows(pace: Pace) -> list[Row]:
    """Measure turns, nested calls and chunks, beside their limits and beside a plain invocation."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            callers, echo = await mount_fast_callers(session, _DEPTH), await mount_fast_echo(session)
            processes = {path: stack.enter_context(Blocking(FAST_CALLER)) for path in callers}
            pairs = Pairs(session, Limit({**processes, echo: stack.enter_context(Blocking(FAST_ECHO))}), echo)
            return [
                *await _turns(pairs, callers[0], pace),
                *await _nested(pairs, callers, pace),
                *await _chunks(pairs, callers[0], pace),
                await _memory(session, callers[0], 20 if pace.quick else 1000),
            ]


class Limit:
    """The limit: only what each kernel must do between modules that call each other."""

    def __init__(self, modules: Mapping[str, Blocking]) -> None:
        self._modules = modules

    def invoke(self, path: str, op: str, args: object) -> Any:
        """Invoke one operation, and make the system calls of its module."""
        module, params = self._modules[path], {"op": op, "args": args}
        reply = module.ask(_line(params))
        while pending := reply.get("pending"):
            results = [{"ok": True, "result": self._make(**call)} for call in pending["syscalls"]]
            reply = module.ask(_line({**params, "resume": {"state": pending.get("state"), "results": results}}))
        return reply["result"]

    def stream(self, path: str, op: str, args: object) -> int:
        """Read an invocation's chunks, and give their number."""
        return self._modules[path].stream(_line({"op": op, "args": args}))

    def _make(self, name: str, args: dict[str, Any]) -> Any:
        return self.invoke(**args) if name == "invoke" else []


def _line(params: object) -> bytes:
    return orjson.dumps({"id": "r1", "method": "invoke", "params": params}, option=orjson.OPT_APPEND_NEWLINE)


class Pairs:
    """The same calls, made by the limit and by the kernel; the first contender is a plain invocation."""

    def __init__(self, session: Session, limit: Limit, echo: str) -> None:
        self.echo = (echo, "echo", _TEXT)
        self._session = session
        self._limit = limit
        self._contenders = [self._plain()]

    def invoking(self, name: str, call: Sequence[Any], result: object, size: int = 1) -> None:
        """Add an invocation that does so many things."""
        self._add(name, functools.partial(self._limit.invoke, *call), self._invoke(call, result), size)

    def streaming(self, name: str, path: str, count: int, *, alone: bool) -> None:
        """Add a stream of so many chunks."""
        call = (path, "stream", {"count": count, "chunk": _TEXT, "alone": alone})

        async def ours() -> None:
            read = 0
            async for _ in self._session.stream(*call):
                read += 1
            assert read == count

        self._add(name, functools.partial(self._limit.stream, *call), ours, count)

    async def compare(self, pace: Pace) -> dict[str, list[float]]:
        """Measure what was added."""
        contenders, self._contenders = self._contenders, [self._plain()]
        return await compare(contenders, pace)

    def _plain(self) -> Contender:
        return Contender("plain", sequential(self._invoke(self.echo, _TEXT)))

    def _invoke(self, call: Sequence[Any], result: object) -> Callable[[], Awaitable[None]]:
        async def ours() -> None:
            assert await self._session.invoke(*call) == result

        return ours

    def _add(self, name: str, limit: Callable[[], object], ours: Callable[[], Awaitable[object]], size: int) -> None:
        self._contenders += [
            Contender(f"limit {name}", per_thing(blocking(limit), size), step=size),
            Contender(f"ours {name}", per_thing(sequential(ours), size), step=size),
        ]


def _row(path: str, samples: Mapping[str, Sequence[float]], name: str, goal: Goal | None = None) -> Row:
    return Row.of(path, samples, limit=f"limit {name}", ours=f"ours {name}", goal=goal)


def _to_plain(path: str, samples: Mapping[str, Sequence[float]], name: str) -> Row:
    return Row.of(f"{path}, to an invocation", samples, limit="plain", ours=f"ours {name}")


async def _turns(pairs: Pairs, caller: str, pace: Pace) -> list[Row]:
    """Measure a turn, in invocations of many turns that make one system call each."""
    count = 10 if pace.quick else 200
    path, op, args = pairs.echo
    invoking = {"name": "invoke", "args": {"path": path, "op": op, "args": args}}
    for name, syscall in (("trivial", _TRIVIAL), ("invoking", invoking)):
        pairs.invoking(name, (caller, "turns", {"count": count, "syscall": syscall}), count, count)
    samples = await pairs.compare(pace)
    return [
        row
        for path, name in (
            ("a turn with a trivial system call", "trivial"),
            ("a turn with an invocation of an echo", "invoking"),
        )
        for row in (_row(path, samples, name), _to_plain(path, samples, name))
    ]


async def _nested(pairs: Pairs, callers: Sequence[str], pace: Pace) -> list[Row]:
    """Measure chains of modules that invoke each other: each level is a request, a pending reply and a resume."""
    call: tuple[str, str, object] = pairs.echo
    for depth, caller in enumerate(callers, 1):
        path, op, args = call
        call = (caller, "relay", {"path": path, "op": op, "args": args})
        pairs.invoking(str(depth), call, _TEXT)
    samples = await pairs.compare(pace)
    return [
        row
        for depth in range(1, len(callers) + 1)
        for path, name in ((f"a nested call, depth {depth}", str(depth)),)
        for row in (_row(path, samples, name), _to_plain(path, samples, name))
    ]


async def _chunks(pairs: Pairs, path: str, pace: Pace) -> list[Row]:
    """Measure a stream of one chunk; then one chunk of many, sent one by one, or as fast as they are read."""
    pairs.streaming("one", path, 1, alone=True)
    pairs.streaming("alone", path, 20 if pace.quick else 500, alone=True)
    pairs.streaming("at full rate", path, 100 if pace.quick else 20_000, alone=False)
    samples = await pairs.compare(pace)
    return [
        _row("a stream of one chunk, 200 B", samples, "one"),
        _to_plain("a stream of one chunk, 200 B", samples, "one"),
        _row("a chunk, 200 B, one by one", samples, "alone"),
        _row("a chunk, 200 B, at full rate", samples, "at full rate", Goal(2.5)),
    ]


async def _memory(session: Session, path: str, count: int) -> Row:
    """Give the memory of streams that are open and have been read from, with what an embedder holds of each."""
    await _finish(session, path, [await _open(session, path)])
    streams: list[Any] = [None] * count
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(count):
            streams[at] = await _open(session, path)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await _finish(session, path, streams)
    return Row(path=f"memory of a stream, {count:,} open at once", unit="B", ours=(after - before) / count)


async def _open(session: Session, path: str) -> Any:
    stream = session.stream(path, "hold", {"chunk": _TEXT})
    assert await anext(stream) == _TEXT
    return stream


async def _finish(session: Session, path: str, streams: Sequence[Any]) -> None:
    assert await session.invoke(path, "finish", {}) == len(streams)
    for stream in streams:
        assert await stream.result() == 0
