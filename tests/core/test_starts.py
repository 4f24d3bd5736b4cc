"""`Kernel(event_starts=True)`: an event when a call is sent, so that a log shows what was in flight."""

import asyncio
import json
import subprocess
import sys

import pytest
from tests.conftest import MODULES

from amplifier_core import Forbidden, Kernel, KernelError, Plan

ECHO, CALLER = "/mnt/tools/echo", "/mnt/tools/caller"


@pytest.fixture
async def session(log):
    async with Kernel(event_log=log, isolation=False, event_starts=True) as kernel:
        yield await kernel.session.create(Plan("x"))


def ids(event):
    return {name: event.get(name) for name in ("session_id", "request_id", "span_id", "parent_span_id", "module")}


async def test_a_call_has_an_event_when_it_is_sent(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.invoke(ECHO, "echo", {"n": 1})
    (start,), (end,) = events("module:pre_invoke"), events("module:invoke")
    assert ids(start) == ids(end)
    assert start["data"] == {"op": "echo", "args": {"n": 1}}
    assert not {"status", "duration_ms", "error"} & start.keys()
    assert end["seq"] == start["seq"] + 1


async def test_large_arguments_are_left_out_of_it_too(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.invoke(ECHO, "echo", {"text": "x" * 10_000})
    assert events("module:pre_invoke")[0]["data"] == {"op": "echo", "args": {"$omitted": 10_011}}


async def test_it_has_the_trace_of_a_caller_as_the_end_has(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    await session.invoke(ECHO, "echo", {}, traceparent=traceparent)
    (start,), (end,) = events("module:pre_invoke"), events("module:invoke")
    assert start["data"]["traceparent"] == end["data"]["traceparent"] == traceparent
    assert ids(start) == ids(end)


async def test_what_is_not_sent_has_none(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)

    async def deny(event):
        return {"decision": "deny"}

    await session.register_hook("policy:request", deny)
    for call in (
        session.invoke(ECHO, "echo", {}),
        session.invoke("/mnt/tools/none", "echo", {}),
        session.invoke(ECHO, "", {}),
    ):
        with pytest.raises(KernelError):
            await call
    assert len(events("module:invoke")) == 3
    assert not events("module:pre_invoke")


async def test_it_comes_once_however_often_a_module_is_asked_again(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    capabilities = [f"sys:invoke:{ECHO}"]

    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", module("caller.py", capabilities=capabilities), trusted=True)
    call = {"name": "invoke", "args": {"path": ECHO, "op": "echo", "args": {}}}
    await session.invoke(CALLER, "turns", {"count": 3, "syscall": call})
    starts, ends = events("module:pre_invoke"), events("module:invoke")
    assert sorted(each["module"] for each in starts) == [CALLER, ECHO, ECHO, ECHO]
    assert {each["span_id"] for each in starts} == {each["span_id"] for each in ends}
    assert starts[0]["module"] == CALLER
    assert ends[-1]["module"] == CALLER


async def test_with_limits_it_comes_when_the_turn_has_come_and_before_the_idle_time(session, module, events):
    limits = {"concurrency": 1, "idle_ms": 20_000}
    await session.mount("/mnt/tools", module("echo.py", limits=limits), trusted=True)
    await asyncio.gather(*(session.invoke(ECHO, "echo", {"n": n}) for n in range(3)))
    names = [each["event"] for each in events() if each["event"] in ("module:pre_invoke", "module:invoke")]
    assert names == ["module:pre_invoke", "module:invoke"] * 3


async def test_a_call_that_is_measured_has_one(session, module, events):
    await session.mount("/mnt/tools", module("echo.py", limits={"cpu_ms": 60_000}), trusted=True)
    await session.invoke(ECHO, "echo", {})
    assert len(events("module:pre_invoke")) == 1


async def test_a_policy_hook_that_is_a_module_has_one_too(session, module, tmp_path, events):
    hook = module("hook.py", tmp_path / "heard", "allow", kind="hook")
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    await session.invoke(ECHO, "echo", {})
    assert [each["module"] for each in events("module:pre_invoke")] == ["/mnt/hooks/hook", ECHO]


async def test_a_call_that_is_denied_on_its_way_was_sent_and_has_an_end(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)

    async def deny(event):
        return {"decision": "deny"}

    async def at_the_start(event):
        await session.register_hook("policy:request", deny)

    await session.register_hook("module:pre_invoke", at_the_start)
    with pytest.raises(Forbidden):
        await session.invoke(ECHO, "sleep", {"seconds": 0.05})
    (start,), (end,) = events("module:pre_invoke"), events("module:invoke")
    assert start["span_id"] == end["span_id"]


async def test_without_being_asked_for_there_is_none(kernel, module, events):
    session = await kernel.session.create(Plan("x"))
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.invoke(ECHO, "echo", {})
    assert not events("module:pre_invoke")


KILLED = """
import asyncio, sys
from amplifier_core import Kernel, Plan

LOG, ECHO = sys.argv[1:]

def echo(name, **fields):
    command = [sys.executable, ECHO, "--name", name]
    transport = {"type": "stdio", "command": command}
    return {"name": name, "kind": "tool", "capabilities": [], "transport": transport, **fields}

async def main():
    async with Kernel(event_log=LOG, isolation=False, event_starts=True) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", echo("many"), trusted=True)
        await session.mount("/mnt/tools", echo("one", limits={"concurrency": 1}), trusted=True)
        begun = []

        async def count(event):
            begun.append(event.data["args"])
            if len(begun) == 8 + 3 + 1:
                print("in flight", flush=True)

        async def ask_a_person(event):
            if event.data["op"] == "deaf" and event.data["args"].get("ask"):
                await asyncio.get_running_loop().create_future()
            return {"decision": "allow"}

        await session.register_hook("module:pre_invoke", count)
        await session.register_hook("policy:request", ask_a_person)
        for n in range(8):
            await session.invoke("/mnt/tools/many", "echo", {"n": n})
        calls = [session.invoke("/mnt/tools/many", "deaf", {"flies": n}) for n in range(3)]
        calls += [session.invoke("/mnt/tools/one", "deaf", {"flies": 3 + n}) for n in range(2)]
        calls += [session.invoke("/mnt/tools/many", "deaf", {"ask": True})]
        await asyncio.gather(*calls)

asyncio.run(main())
"""


def test_the_log_of_a_process_that_was_killed_shows_what_was_in_flight(log):
    command = [sys.executable, "-c", KILLED, str(log), str(MODULES / "echo.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline().rstrip() == b"in flight"
        process.kill()
        process.wait()
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    starts, ends = (
        {each["span_id"]: each for each in events if each["event"] == name}
        for name in ("module:pre_invoke", "module:invoke")
    )
    assert ends.keys() <= starts.keys()
    assert len(ends) == 8
    left = [starts[span]["data"]["args"]["flies"] for span in starts.keys() - ends.keys()]
    assert sorted(left) == [0, 1, 2, 3]  # the last one waits for its turn, and one waits for a person
    assert events[-1]["event"] != "kernel:end"
