"""Where a fault is provoked: a kernel with its log, one module, and a strict look at all that is there afterwards.

Owns what every case asserts: the error and its cause, that the next call works, that the log is complete, and that no
task, process or file is left. It knows no fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import tracemalloc
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import children, descriptors, files_left
from tests.faults.case import Seen
from tests.http.raw import Server

from amplifier_core import Kernel, KernelError, Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.faults.case import Case

    from amplifier_core import ModuleDescriptor, Session

MODULE = "/mnt/tools/m"
MARK = "AMPLIFIER_TEST_FAULT"
"""A variable in the environment of each process that a case starts, and so of all that those start."""

_FAR = 60.0  # seconds: a deadline that ends nothing


class Stage:
    """One case's kernel and module. Every call goes through here, so that the log can be held against them."""

    def __init__(self, case: Case, folder: Path, session: Session, servers: AsyncExitStack) -> None:
        self.case = case
        self.folder = folder
        self.session = session
        self.seen: Seen | None = None
        self.plain: Callable[[Any], Any] = lambda result: result  # what an op answered, where more is around it
        self.codes: list[str] = []
        self.mounts: list[str] = []
        self.mark = f"{os.getpid()}-{folder}"
        self._servers = servers

    async def serve(self, answer: Callable[..., Awaitable[None]], **options: Any) -> Server:
        """Start a server for the rest of the case."""
        server = Server(answer)
        await server.start(**options)
        self._servers.push_async_callback(server.stop)
        return server

    def later(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Have something stopped at the end of the case."""
        self._servers.push_async_callback(stop)

    async def mount(self, descriptor: ModuleDescriptor, timeout: float = _FAR) -> None:
        """Mount the module of the case."""
        trusted = "command" in descriptor.transport or descriptor.transport["type"] == "inproc"
        mounting = self.session.mount("/mnt/tools", descriptor, trusted=trusted, timeout=timeout)
        await _noted(mounting, self.mounts)

    async def call(self, op: str, args: Any = None, timeout: float = _FAR) -> Any:
        """Invoke the module."""
        return self.plain(await self.note(self.session.invoke(MODULE, op, args or {}, timeout=timeout)))

    async def note(self, invocation: Awaitable[Any]) -> Any:
        """Wait for an invocation, and note its code for the log."""
        return await _noted(invocation, self.codes)

    async def provoke(self, doing: Awaitable[Any]) -> None:
        """Wait for what meets the fault; note the time and the error, and hold the error against the case."""
        began = time.monotonic()
        result, error = None, None
        with _memory_within(self.case.memory):
            try:
                result = await doing
            except KernelError as failure:
                error = failure
        seconds = time.monotonic() - began - (self.case.deadline or 0.0)
        assert self.case.deadline is None or seconds > -0.01, f"it did not wait for the deadline: {error}"
        self.seen = Seen(error.code if error else "ok", max(seconds, 0.0), str(error or ""))
        if self.seen.code == self.case.code:
            _check_error(self.case, error) if error else _check_result(self.case, result)

    async def bad(self, *, siblings: int = 0) -> None:
        """Provoke the fault with the op ``bad``; half of the siblings ask the module before, and half behind it."""
        others = [asyncio.create_task(self._sibling(n)) for n in range(siblings // 2)]
        fault = asyncio.create_task(self.provoke(self.call("bad", timeout=self.case.deadline or _FAR)))
        others += [asyncio.create_task(self._sibling(n)) for n in range(siblings // 2, siblings)]
        await asyncio.gather(fault, *others)

    async def _sibling(self, number: int) -> None:
        found = await self.call("good", {"sibling": number})
        assert found == {"sibling": number}, f"a sibling got {found}"


async def _noted(doing: Awaitable[Any], codes: list[str]) -> Any:
    try:
        result = await doing
    except KernelError as error:
        codes.append(error.code)
        raise
    codes.append("ok")
    return result


@contextmanager
def _memory_within(limit: int | None) -> Iterator[None]:
    if limit is None:
        yield
        return
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes were allocated"


def _check_result(case: Case, found: Any) -> None:
    same = found == case.result  # pytest would show how 32 MB differ
    assert same, f"expected {str(case.result)[:200]}, got {str(found)[:200]}"


def _check_error(case: Case, error: KernelError) -> None:
    text = f"{error.message} {json.dumps(error.details)}"
    assert case.says.casefold() in text.casefold(), f"expected {case.says!r} in {text}"
    assert "\n" not in error.message, error.message
    for name, expected in case.details.items():
        found = error.details.get(name)
        same = found.endswith(expected) if isinstance(found, str) and isinstance(expected, str) else found == expected
        assert same, f"details.{name}: expected {expected!r}, got {found!r}"


def run(case: Case, folder: Path) -> Seen:
    """Play one case and give what was seen. Raises ``AssertionError`` for whatever is not as it should be."""
    before = children(), descriptors().keys()
    stage = asyncio.run(_play(case, folder))
    assert stage.seen is not None, "the case provoked nothing"
    _check_log(stage, case)
    left = children() - before[0]
    assert not left, f"child processes are left: {left}"
    files = files_left(before[1])
    assert not files, f"open files are left: {files}"
    wait_for_end(stage.mark)
    return stage.seen


async def _play(case: Case, folder: Path) -> Stage:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as servers, Kernel(event_log=folder / "events.jsonl") as kernel:
        session = await kernel.session.create(Plan(goal=case.name, inputs={}))
        stage = Stage(case, folder, session, servers)
        await case.play(stage)
        for n in range(3):
            found = await stage.call("good", {"next": n})
            assert found == {"next": n}, f"the next call got {found}"
    left = asyncio.all_tasks() - before
    assert not left, f"tasks are left: {left}"
    return stage


def _check_log(stage: Stage, case: Case) -> None:
    """See that the log has every invocation and mount once, every start with its exit, and no gap."""
    events = [json.loads(line) for line in (stage.folder / "events.jsonl").read_bytes().splitlines()]
    numbers = [event["seq"] for event in events]
    assert numbers == list(range(1, len(events) + 1)), f"the log has gaps: {numbers}"
    for name, codes in (("module:invoke", stage.codes), ("mount:add", stage.mounts)):
        found = [event.get("error", {}).get("code", "ok") for event in events if event["event"] == name]
        assert sorted(found) == sorted(codes), f"the log has {name} {found}, the callers had {codes}"
    names = [event["event"] for event in events]
    assert names.count("module:start") == names.count("module:exit"), f"starts without exits: {names}"
    for name, data in case.logged.items():
        found = [event["data"] for event in events if event["event"] == name]
        assert found == [data], f"{name}: expected one with {data}, got {found}"


def wait_for_start(mark: str, count: int) -> None:
    """Wait until so many processes bear the mark: one in the middle of exec shows no environment."""
    deadline = time.monotonic() + 10
    while len(found := marked(mark)) != count:
        assert time.monotonic() < deadline, f"expected {count} processes: {found}"


def wait_for_end(mark: str) -> None:
    """Wait until no process bears the mark: whoever is sent SIGKILL is dead, yet it takes the system a moment."""
    deadline = time.monotonic() + 2
    while left := marked(mark):
        assert time.monotonic() < deadline, f"processes are left: {left}"


def marked(mark: str) -> list[str]:
    """Find the processes that bear the mark, whoever their parent is by now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is not ours
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(f"{folder.name} {(folder / 'cmdline').read_bytes()[:200]!r}")
    return found
