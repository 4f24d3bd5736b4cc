"""Runs whose kernel was killed, which go on: nothing that was answered is asked again, and nothing is lost."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.replay.scripted import Scripted, scripted
from tests.replay.test_compare import allow, calls, program

from amplifier_core import BadRequest, Forbidden, Kernel, KernelError, Plan, Timeout, Unreachable
from amplifier_core.hookspecs import Usage
from amplifier_replay import UnusableLog, fork, replay, resume
from amplifier_replay._log import check_killed
from amplifier_replay._new_log import NewLog

CALLER, ECHO = "/mnt/orchestrators/caller", "/mnt/tools/echo"
IDEMPOTENT = {"ops": {"echo": {"idempotent": True}, "turns": {"idempotent": True}, "call": {"idempotent": True}}}
WORK = """
import asyncio, json, sys
from amplifier_core import Kernel, Plan

log, echo, caller = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])

async def allow(event):
    return {"decision": "allow"}

async def main():
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="work", inputs={}))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", echo, trusted=True)
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        syscall = {"name": "invoke", "args": {"path": "/mnt/tools/echo", "op": "echo", "args": {}}}
        turns = {"count": 30, "syscall": syscall}
        await asyncio.gather(*(session.invoke("/mnt/orchestrators/caller", "turns", turns) for _ in range(4)))

asyncio.run(main())
"""


def echo(**fields):
    return program("echo.py", "echo") | fields


def caller(**fields):
    return program("caller.py", "caller", "orchestrator", ["sys:invoke:*"]) | fields


def read(log):
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def cut(log, to, where):
    """Give the log as it was after its first lines, and part of a line."""
    lines = log.read_bytes().splitlines(keepends=True)
    to.write_bytes(b"".join(lines[: next(n for n, line in enumerate(lines) if where in line) + 1]) + b'{"id":"evt')
    return to


@pytest.fixture
def rest(tmp_path):
    return tmp_path / "rest.jsonl"


def kill_at(log, lines):
    """Start the work, and kill it as soon as its log has so many lines."""
    command = [sys.executable, "-c", WORK, str(log), json.dumps(echo(**IDEMPOTENT)), json.dumps(caller(**IDEMPOTENT))]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while (not log.exists() or log.read_bytes().count(b"\n") < lines) and process.poll() is None:
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("lines", random.Random(20).sample(range(30, 500), 5))
async def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(log, lines):
    assert kill_at(log, lines)
    raw = log.read_bytes()
    raw = raw[: raw.rindex(b"\n") + 1]  # a kill may leave part of a line
    before = [json.loads(line) for line in raw.splitlines()]
    begun = {event["span_id"] for event in before if event.get("module") == CALLER and event["event"] in STARTS}
    begun -= {event["span_id"] for event in before if event["event"] == "mount:pre_add"}
    ended = {
        event["span_id"] for event in before if event.get("module") == CALLER and event["event"] == "module:invoke"
    }
    async with resume(log, hooks={"allow": allow}, trusted=True) as run:
        assert [await call.task for call in run.calls] == [30] * len(begun - ended)
        assert {call.span_id for call in run.calls} == begun - ended
    assert log.read_bytes().startswith(raw)
    after = read(log)
    invoked = [event["span_id"] for event in after if event["event"] == "module:invoke"]
    assert len(invoked) == len({*invoked}), "a call was made twice"
    assert [event["event"] for event in after if event["event"].startswith("kernel:")] == KERNEL
    assert await replay(log, lambda _: None) == len(after)


STARTS = ("policy:request", "module:pre_invoke")
KERNEL = ["kernel:start", "kernel:resume", "kernel:end"]


@pytest.fixture
async def recorded(log):
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", echo(), trusted=True)
        await session.mount("/mnt/orchestrators", caller(ops={"call": {"idempotent": True}}), trusted=True)
        await session.context.set_fragment("summary", {"n": 1})
        await session.invoke(CALLER, "call", calls(1, 2, 3))
    return log


async def test_a_call_that_was_sent_and_not_answered_fails_unless_it_is_idempotent(recorded, rest):
    cut(recorded, rest, b'"module:pre_invoke","component":"kernel","seq":%d' % seq_of(recorded, ECHO))
    async with resume(rest, hooks={"allow": allow}, trusted=True) as run:
        (call,) = run.calls
        answer = await call.task
    assert (call.path, call.op, call.args) == (CALLER, "call", calls(1, 2, 3))
    first, *others = answer["results"]
    assert first["error"]["code"] == "unreachable"
    assert "the kernel was killed after echo was sent" in first["error"]["message"]
    assert [each["result"] for each in others] == [{"n": 2}, {"n": 3}]
    assert await replay(rest, lambda _: None)


def seq_of(log, path):
    return next(
        event["seq"] for event in read(log) if event["event"] == "module:pre_invoke" and event["module"] == path
    )


async def test_what_was_answered_is_not_asked_again(recorded, rest, tmp_path):
    last = max(
        event["seq"] for event in read(recorded) if event["event"] == "module:invoke" and event["module"] == ECHO
    )
    cut(recorded, rest, b'"module:invoke","component":"kernel","seq":%d,' % last)
    broken = echo()
    broken["transport"]["command"][1] = str(tmp_path / "nonesuch.py")
    async with resume(
        rest, hooks={"allow": allow}, trusted=True, descriptors={ECHO: descriptor(broken, tmp_path)}
    ) as run:
        answer = await run.calls[0].task
        assert [each["result"] for each in answer["results"]] == [{"n": 1}, {"n": 2}, {"n": 3}]
        with pytest.raises(Unreachable, match="nonesuch"):
            await run.sessions[run.calls[0].session_id].invoke(ECHO, "echo", {})


def descriptor(mapping, folder):
    (folder / "descriptor.json").write_text(json.dumps(mapping))
    return folder / "descriptor.json"


async def test_sessions_mounts_and_fragments_are_there(recorded, rest):
    cut(recorded, rest, b'"context:set"')
    async with resume(rest, hooks={"allow": allow}, trusted=True) as run:
        (session,) = run.sessions.values()
        assert run.calls == []
        assert (await session.context.get())["fragments"] == {"summary": {"n": 1}}
        assert [mount["path"] for mount in await session.mounts()] == [ECHO, CALLER]
        assert (await session.mounts())[1]["capabilities"] == ["sys:invoke"]
        answer = await session.invoke(CALLER, "call", calls(7))
        assert answer["results"][0]["result"] == {"n": 7}
        await session.mount("/mnt/agents", program("echo.py", "other"), trusted=True)
        assert await session.invoke("/mnt/agents/other", "echo", {"a": 1}) == {"a": 1}
        child = await session.fork()
        assert (await child.context.get())["fragments"] == {"summary": {"n": 1}}
    assert await replay(rest, lambda _: None)


async def test_a_mount_that_was_going_on_is_done(recorded, rest):
    cut(recorded, rest, b'"module:start"')
    async with resume(rest, hooks={"allow": allow}, trusted=True) as run:
        (session,) = run.sessions.values()
        while not await session.mounts():
            await asyncio.sleep(0.01)
        assert await session.invoke(ECHO, "echo", {"a": 1}) == {"a": 1}


async def test_a_hook_that_is_not_given_denies(recorded, rest):
    cut(recorded, rest, b'"context:set"')
    async with resume(rest) as run:
        (session,) = run.sessions.values()
        with pytest.raises(Forbidden, match="no hook allow was given when the run went on"):
            await session.invoke(ECHO, "echo", {})


async def test_observers_hear_what_comes(log, rest):
    heard = []

    async def hear(event):
        heard.append(event.event)

    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.register_hook("app:*", hear)
        session.emit("app:one", {})
        while not heard:
            await asyncio.sleep(0)
    heard.clear()
    cut(log, rest, b'"app:one"')
    async with resume(rest, hooks={hear.__qualname__: hear}) as run:
        (session,) = run.sessions.values()
        session.emit("app:two", {})
        await session.end()
    assert heard == ["app:two"]


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.lines = []
        self.closed = False

    def write(self, line):
        self.lines.append(bytes(line))

    def close(self):
        self.closed = True


@pytest.mark.parametrize("way", ["resume", "fork"])
async def test_further_sinks_get_what_comes_to_the_log_from_there_on(recorded, rest, tmp_path, way):
    cut(recorded, rest, b'"context:set"')
    before, sink, to = rest.read_bytes().removesuffix(b'{"id":"evt'), Kept(), tmp_path / "new.jsonl"
    count = before.count(b"\n")
    rest.write_bytes(before)
    going_on = fork(rest, count, to, sinks=[sink]) if way == "fork" else resume(rest, sinks=[sink])
    async with going_on as run:
        (session,) = run.sessions.values()
        session.emit("app:one", {})
    assert sink.closed
    log = to if way == "fork" else rest
    assert before + b"".join(sink.lines) == log.read_bytes()
    assert [json.loads(line)["event"] for line in sink.lines[:2]] == [f"kernel:{way}", "app:one"]


async def test_what_is_no_sink_is_refused_before_anything_is_done(recorded, rest):
    cut(recorded, rest, b'"context:set"')
    with pytest.raises(BadRequest, match="sinks: expected objects with write and close, got {'type': 'otel'}"):
        async with resume(rest, sinks=[{"type": "otel"}]):  # type: ignore[list-item]
            raise AssertionError


async def test_a_run_that_has_ended_is_refused_and_so_is_one_that_another_process_resumes(recorded, rest):
    with pytest.raises(UnusableLog, match="expected a run without end, got kernel:end"):
        async with resume(recorded):
            raise AssertionError
    cut(recorded, rest, b'"context:set"')
    before = rest.read_bytes()
    async with resume(rest, hooks={"allow": allow}, trusted=True):
        with pytest.raises(Exception, match="another process goes on with this run|has grown"):
            async with resume(rest):
                raise AssertionError
    assert rest.read_bytes().startswith(before.removesuffix(b'{"id":"evt'))


async def test_where_the_replay_parts_from_the_log_nothing_is_started_and_the_log_is_as_it_was(recorded, rest):
    cut(recorded, rest, b'"context:set"')
    rest.write_bytes(rest.read_bytes().replace(b'"summary"', b'"summarY"', 1).replace(b'"goal":"test"', b'"goal":7'))
    before = rest.read_bytes()
    with pytest.raises(Exception, match="goal"):
        async with resume(rest):
            raise AssertionError
    assert rest.read_bytes() == before


async def test_a_log_that_cannot_be_gone_on_with_is_told(recorded, rest, tmp_path):
    with pytest.raises(UnusableLog, match="cannot be read: No such file"):
        async with resume(tmp_path / "none.jsonl"):
            raise AssertionError
    rest.write_bytes(b'{"id":"evt' + b"x" * 100_000)
    with pytest.raises(UnusableLog, match="got part of a line"):
        async with resume(rest):
            raise AssertionError
    cut(recorded, rest, b'"context:set"')
    part = check_killed(rest)
    with rest.open("ab") as file:
        file.write(b"more")
    with pytest.raises(BadRequest, match="it has grown since it was read"):
        NewLog(rest, part)


async def test_the_time_of_an_open_call_begins_anew(log, rest):
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", echo(ops={"sleep": {"idempotent": True}}), trusted=True)
        await session.invoke(ECHO, "sleep", {"seconds": 0.1})
    cut(log, rest, b'"op":"sleep"')
    rest.write_bytes(rest.read_bytes().replace(b'"seconds":0.1', b'"seconds":20'))
    async with resume(rest, hooks={"allow": allow}, trusted=True, timeout=0.2) as run:
        with pytest.raises(Timeout, match=r"no answer within 0\.2 s"):
            await run.calls[0].task
        (session,) = run.sessions.values()
        with contextlib.suppress(KernelError):
            await session.invoke("/mnt/tools/\x7f\u2028", "echo", {})
    assert rest.read_bytes().count(b"\n") == len(rest.read_text().splitlines())
    assert await replay(rest, lambda _: None)


class Busy(Scripted):
    """A module that is measured."""

    memory = 0
    killed = False

    def usage(self, *, exact):
        return Usage(cpu_ms=0.0, memory_bytes=self.memory)

    def kill(self, error):
        type(self).killed = True


async def test_a_budget_holds_for_what_runs_again(log, rest, monkeypatch):
    def open_transport(descriptor, notify, host):
        return Busy(descriptor)

    described = scripted("m", memory_bytes=1000)
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.mount("/mnt/tools", described)
        await session.context.set_fragment("summary", 1)
    cut(log, rest, b'"context:set"')
    async with resume(rest, open_transport=open_transport, isolation=False) as run:
        (session,) = run.sessions.values()
        monkeypatch.setattr(Busy, "memory", 2000)
        with contextlib.suppress(KernelError):
            await session.invoke("/mnt/tools/m", "wait", {"turns": 10**9}, timeout=3)
    assert Busy.killed


async def test_a_mount_of_a_first_module_that_nothing_confines_is_refused(log, rest):
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.mount("/mnt/tools", echo(), trusted=True)
    cut(log, rest, b'"mount:pre_add"')
    rest.write_bytes(rest.read_bytes().replace(b'"trusted":true', b'"trusted":false'))
    async with resume(rest, isolation=False) as run:
        (session,) = run.sessions.values()
        await asyncio.sleep(0.05)
        assert await session.mounts() == []
    assert "the embedder set isolation=False" in rest.read_text() or "it did not work" in rest.read_text()
    assert await replay(rest, lambda _: None)
