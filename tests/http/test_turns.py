"""pending and resume over HTTP: the same meaning as over STDIO, on a module that holds nothing between its turns."""

import asyncio
import json
import sys

import pytest
from tests.conftest import MODULES

from amplifier_core import KernelError, ModuleDescriptor, Timeout

CALLER = "/mnt/orchestrators/caller"
ECHO = "/mnt/tools/echo"


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def remote(session, module, program):
    """Mount a remote caller with the capabilities given, beside a tool over STDIO."""
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)

    async def mount(*capabilities, argv=(), limits=None):
        options = ["--name", "caller", "--capabilities", json.dumps(list(capabilities)), *argv]
        url = program(sys.executable, str(MODULES / "caller_http.py"), *options)
        fields = {"name": "caller", "kind": "orchestrator", "capabilities": list(capabilities), "limits": limits or {}}
        transport = {"type": "http", "url": url}
        await session.mount("/mnt/orchestrators", ModuleDescriptor.from_mapping({**fields, "transport": transport}))
        return session

    return mount


def invoke(op, **args):
    return {"name": "invoke", "args": {"path": ECHO, "op": op, "args": args}}


async def test_results_come_in_the_order_asked_and_the_state_untouched(remote, events):
    session = await remote("sys:invoke:/mnt/tools/*")
    state = {"float": 1.0, "big": 2**70, "text": "ü\u2028"}
    calls = [invoke("sleep", seconds=0.1), invoke("echo", n=1)]
    result = await session.invoke(CALLER, "call", {"syscalls": calls, "state": state})
    assert [each["result"] for each in result["results"]] == [{"seconds": 0.1}, {"n": 1}]
    assert result["state"] == state
    root, *nested = sorted(events("module:invoke"), key=lambda event: "parent_span_id" in event)
    assert {event["parent_span_id"] for event in nested} == {root["span_id"]}


async def test_hundreds_of_turns(remote):
    session = await remote("sys:invoke")
    assert await session.invoke(CALLER, "turns", {"count": 200, "syscall": invoke("echo", n=1)}) == 200


async def test_a_call_that_was_not_granted_is_its_modules_result(remote):
    session = await remote("sys:emit")
    (refused,) = (await session.invoke(CALLER, "call", {"syscalls": [invoke("echo")]}))["results"]
    assert refused["error"]["code"] == "forbidden"


async def test_modules_on_both_transports_call_each_other_back(remote, session, module):
    await remote("sys:invoke")
    local = module("caller.py", name="local", kind="orchestrator", capabilities=["sys:invoke"])
    await session.mount("/mnt/orchestrators", local, trusted=True)
    args = {"path": ECHO, "op": "echo", "args": {"deep": True}}
    for path in (CALLER, "/mnt/orchestrators/local") * 3:
        args = {"path": path, "op": "relay", "args": args}
    assert await session.invoke(CALLER, "relay", args) == {"deep": True}


async def test_the_deadline_and_cancellation_span_the_turns(remote, events):
    session = await remote("sys:invoke")
    calls = {"syscalls": [invoke("sleep", seconds=30)] * 2}
    with pytest.raises(Timeout):
        await session.invoke(CALLER, "call", calls, timeout=0.3)
    task = asyncio.create_task(session.invoke(CALLER, "call", calls))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event["error"]["code"] for event in events("module:invoke")] == [
        *["cancelled"] * 2,
        "timeout",
        *["cancelled"] * 3,
    ]
    assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert await session.invoke(CALLER, "relay", invoke("echo", n=2)["args"]) == {"n": 2}
    assert len(events("module:start")) == 1  # of the tool, which answered each cancel


@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"timeout_ms": 1000}])
async def test_a_server_that_takes_one_connection_at_a_time_can_be_called_back_if_its_concurrency_is_one(
    remote, limits
):
    session = await remote("sys:invoke", argv=["--one-connection"], limits=limits)
    back = {"name": "invoke", "args": {"path": CALLER, "op": "relay", "args": invoke("echo", n=1)["args"]}}
    invoking = session.invoke(CALLER, "call", {"syscalls": [back, back]})
    if "concurrency" in limits:
        assert [each["result"] for each in (await invoking)["results"]] == [{"n": 1}, {"n": 1}]
    else:
        with pytest.raises(Timeout):
            await invoking


async def test_events_of_a_reply_are_emitted_in_the_modules_name(remote, events):
    session = await remote()
    await session.invoke(CALLER, "emit", {"events": [{"event": "artifact:write", "data": {"path": "a"}}]})
    assert events("artifact:write")[0]["component"] == CALLER


async def test_pending_without_a_call_breaks_the_contract(remote):
    session = await remote("sys:invoke")
    with pytest.raises(KernelError, match="^internal: "):
        await session.invoke(CALLER, "raw", {"reply": {"pending": {"syscalls": []}}})
