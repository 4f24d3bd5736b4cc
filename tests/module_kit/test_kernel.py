"""A module of the kit under the real kernel, over STDIO."""

import subprocess
import sys

import pytest
from tests.conftest import MODULES

from amplifier_core import BadRequest, Cancelled, Forbidden, Internal, KernelError, ModuleDescriptor, Timeout
from amplifier_core.testing import check_module

EVERYTHING = "/mnt/orchestrators/everything"


@pytest.fixture
def elsewhere():
    """The descriptor of an echo over HTTP: what a module mounts where nothing isolates."""
    command = [sys.executable, str(MODULES / "echo_http.py"), "--name", "echo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout
        url = server.stdout.readline().decode().split()[-1]
        transport = {"type": "http", "url": url}
        yield {"name": "echo", "kind": "tool", "capabilities": [], "transport": transport}
        server.stdin.close()


@pytest.fixture
async def everything(session, described, approve):
    await session.register_hook("policy:request", approve, priority=1)
    await session.mount("/mnt/orchestrators", described, trusted=True)

    async def invoke(op, args=None, **options):
        return await session.invoke(EVERYTHING, op, args or {}, **options)

    return invoke


@pytest.fixture
async def counters(session, described):
    """Two counting tools, and a path where there is none."""
    for name in ("one", "two"):
        text = COUNTER.format(name=name)
        transport = {"type": "stdio", "command": [sys.executable, "-c", text]}
        fields = {"name": name, "kind": "tool", "capabilities": [], "transport": transport}
        await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(fields), trusted=True)
    return ["/mnt/tools/one", "/mnt/tools/none", "/mnt/tools/two"]


COUNTER = """
from amplifier_module import Module
module = Module({name!r})
@module.op
def count(text: str) -> dict[str, int]:
    return {{"words": len(text.split())}}
module.run()
"""


async def test_it_conforms(described):
    examples: dict = {
        "count": {"text": "a b"},
        "stream": {"to": 3},
        "stream.async": {"to": 3},
        "nap": {"seconds": 0.01},
        "steps": {"paths": ["/mnt/tools/x"]},
        "steps.stateless": {"paths": ["/mnt/tools/x"]},
    }
    checks = await check_module(described, examples)
    assert [check for check in checks if check.problem] == []
    assert len(checks) == 4 + 2 * len(examples)


async def test_a_call_and_an_error(everything):
    assert await everything("count", {"text": "a b"}) == {"words": 2}
    with pytest.raises(BadRequest, match="args.text: expected str.*, got "):
        await everything("count", {"text": 1})
    with pytest.raises(KernelError, match="buy some soon") as raised:
        await everything("fail", {"how": "own"})
    assert raised.value.code == "out_of_ink"
    assert raised.value.details["colour"] == "cyan"


async def test_chunks_reach_the_caller(session, everything):
    async with session.stream(EVERYTHING, "stream.async", {"to": 3}) as stream:
        assert [chunk["n"] async for chunk in stream] == [1, 2, 3]
    assert await stream.result() == 3


@pytest.mark.parametrize("op", ["wait", "hang", "nap"])
async def test_a_deadline_ends_the_call_and_not_the_module(everything, events, op):
    pid = (await everything("echo", {"value": 1})) and events("module:start")
    with pytest.raises(Timeout):
        await everything(op, {"seconds": 30}, timeout=0.3)
    assert await everything("count", {"text": ""}) == {"words": 0}
    assert events("module:start") == pid
    assert not events("module:exit")


async def test_events_are_emitted_in_its_name(everything, events):
    await everything("tell", {"events": 2})
    assert [(event["component"], event["data"]) for event in events("kit:told")] == [
        (EVERYTHING, {"n": 0}),
        (EVERYTHING, {"n": 1}),
    ]


async def test_the_invocation_is_told(session, everything):
    told = await everything("nap", timeout=7)
    assert told["session"] == session.session_id
    assert len(told["span"]) == 16
    assert told["request"]
    assert 5 < told["left"] < 7
    assert told["cancelled"] is False


@pytest.mark.parametrize("op", ["steps", "steps.stateless"])
async def test_calls_that_are_awaited_together_are_made_together(session, everything, counters, events, op):
    async with session.stream(EVERYTHING, op, {"paths": counters}) as stream:
        assert [chunk async for chunk in stream] == ["start", "together"]  # each once, however often it runs
    assert await stream.result() == [2, "bad_request", 2, 3, "bad_request", 3]
    assert [event["data"]["at"] for event in events("kit:step")] == ["start", "together"]


async def test_a_failed_call_is_the_modules_error_unless_it_is_caught(everything, counters):
    with pytest.raises(BadRequest, match="args.text"):
        await everything("relay", {"path": counters[0], "op": "count", "args": {}})
    with pytest.raises(Forbidden):
        await everything("relay", {"path": "/mnt/agents/x", "op": "count", "args": {}})


async def test_chunks_of_another_module_are_passed_on(session, everything, module):
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    args = {"path": "/mnt/tools/streamer", "op": "count", "args": {"to": 2}, "stream": True}
    async with session.stream(EVERYTHING, "relay", args) as stream:
        assert [chunk["n"] async for chunk in stream] == [1, 2]
    assert await stream.result() == {"count": 2}


async def test_a_plain_function_makes_no_system_calls(everything):
    with pytest.raises(Internal, match="TypeError: plain_call: the system call invoke .* needs an `async def`"):
        await everything("plain_call")


async def test_every_system_call(everything, events, elsewhere):
    told = await everything("every", {"descriptor": elsewhere})
    assert told["path"] == "/mnt/tools/echo"
    assert told["names"] == ["echo"]
    assert "echo" in told["inputs"]
    assert told["removed"] == ["/mnt/tools/echo"] * 2
    assert told["got"] == {"key": {"a": [1]}}
    assert events("kit:emitted")[0]["data"] == {"n": 1}
    assert {event["status"] for event in events("session:end")} == {"done", "ok"}


async def test_every_system_call_in_a_session_that_it_made(everything, events, elsewhere):
    told = await everything("sub_session", {"descriptor": elsewhere})
    assert told["result"] == {"n": 1}
    assert told["described"] == "echo"
    assert told["mounts"] == [["/mnt/tools/echo"], [EVERYTHING]]
    assert told["fragments"] == [{"key": 1}, {}]
    assert told["removed"] == ["/mnt/tools/echo"]
    for name in ("mount:add", "hook:register", "kit:emitted", "context:set", "mount:remove"):
        assert events(name)[-1]["session_id"] == told["made"], name


async def test_a_function_works_on_while_its_calls_are_made(session, everything, events):
    async with session.stream(EVERYTHING, "beside", {}) as stream:
        assert [chunk async for chunk in stream] == ["between"]
    assert await stream.result() == "done"
    assert events("kit:between")
    assert events("kit:later")


async def test_a_function_that_does_not_wait_for_its_calls_is_answered(everything):
    assert await everything("leave") == "left"
    with pytest.raises(Internal, match="leave: too many chunks while it waits for system calls"):
        await everything("leave", {"chunk": 2 << 20})


async def test_a_call_that_is_given_up_in_time_is_not_made(everything):
    assert await everything("regret") == "none"


async def test_a_stateless_function_that_makes_other_calls_is_told(everything):
    with pytest.raises(Internal, match="diverge is stateless: run again, it made other system calls than before"):
        await everything("diverge")


async def test_a_waiting_function_is_cancelled_with_its_caller(session, everything, module):
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    args = {"path": "/mnt/tools/streamer", "op": "endless", "args": {"pause": 0.05}}
    with pytest.raises((Timeout, Cancelled)):
        await everything("relay", args, timeout=0.3)
    assert await everything("count", {"text": ""}) == {"words": 0}
