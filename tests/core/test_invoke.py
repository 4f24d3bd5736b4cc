import asyncio
import re

import pytest

from amplifier_core import (
    BadRequest,
    Cancelled,
    Forbidden,
    Internal,
    Kernel,
    KernelError,
    Plan,
    Timeout,
    Unreachable,
    UnsupportedOp,
)

ECHO = "/mnt/tools/echo"


@pytest.fixture
async def echo(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    return session


async def test_invoke_gives_the_result_and_records_it(echo, events):
    assert await echo.invoke(ECHO, "echo", {"text": "a b"}) == {"text": "a b"}
    (event,) = events("module:invoke")
    assert event["module"] == ECHO
    assert event["status"] == "ok"
    assert event["data"] == {"op": "echo", "args": {"text": "a b"}, "result": {"text": "a b"}}
    assert event["session_id"] == echo.session_id
    assert re.fullmatch("[0-9a-f]{32}", event["request_id"])
    assert len(event["span_id"]) == 16
    assert "parent_span_id" not in event
    assert event["duration_ms"] > 0


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "", "ü\u2028\0", [], {}, [[{}]], 2**53 + 1, 2**63, 2**64, -(2**70), 1e300]
)
async def test_any_json_comes_back_as_it_went(echo, value):
    assert await echo.invoke(ECHO, "echo", {"value": value}) == {"value": value}


async def test_64_at_once_get_each_their_own_reply(echo):
    results = await asyncio.gather(*(echo.invoke(ECHO, "echo", {"n": n}) for n in range(64)))
    assert results == [{"n": n} for n in range(64)]


async def test_replies_come_in_any_order(echo):
    slow = asyncio.create_task(echo.invoke(ECHO, "sleep", {"seconds": 0.2}))
    assert await echo.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert not slow.done()
    assert await slow == {"seconds": 0.2}


@pytest.mark.parametrize(
    ("op", "args", "fault"),
    [
        (None, {}, "op: expected a name, got None"),
        ("", {}, "op: expected a name, got ''"),
        (5, {}, "op: expected a name, got 5"),
        ("echo", None, "args: expected an object, got NoneType"),
        ("echo", [], "args: expected an object, got list"),
        ("echo", {"a": float("nan")}, "args.a: expected a finite number, got nan"),
        ("echo", {"a": [1, b"x"]}, "args.a[1]: expected JSON, got bytes"),
        ("echo", {"a": {1}}, "args.a: expected JSON, got set"),
        ("echo", {"a": "\ud800"}, "args.a: expected Unicode text, got a lone surrogate"),
        ("echo", {5: 1}, "args: expected text as a key, got int"),
    ],
)
async def test_a_call_that_does_not_fit_is_refused_recorded_and_harmless(echo, events, op, args, fault):
    with pytest.raises(BadRequest) as caught:
        await echo.invoke(ECHO, op, args)
    assert caught.value.message == fault
    assert caught.value.details["module"] == ECHO
    (event,) = events("module:invoke")
    assert event["status"] == "error"
    assert event["error"]["message"] == fault
    assert await echo.invoke(ECHO, "echo", {}) == {}


async def test_a_cycle_is_refused(echo):
    cycle: dict = {}
    cycle["self"] = cycle
    with pytest.raises(BadRequest, match="args: nested more than 200 levels deep, or a cycle"):
        await echo.invoke(ECHO, "echo", cycle)


async def test_arguments_over_the_limit_are_refused(echo, events):
    with pytest.raises(BadRequest, match="args: expected at most 33554432 bytes of JSON"):
        await echo.invoke(ECHO, "echo", {"text": "x" * 100_000_000})
    assert events("module:invoke")[0]["data"] == {"op": "echo"}
    assert await echo.invoke(ECHO, "echo", {}) == {}


async def test_a_large_argument_and_result_stand_in_the_log_as_their_sizes(echo, events):
    text = "x" * 100_000
    assert await echo.invoke(ECHO, "echo", {"text": text}) == {"text": text}
    data = events("module:invoke")[0]["data"]
    assert data["args"] == {"$omitted": 100_011}
    assert 100_011 <= data["result"]["$omitted"] <= 100_020  # the spaces that the sender puts in count too


async def test_a_result_that_is_small_in_a_large_reply_stands_there_whole(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    text = "x" * 8000
    await session.invoke(ECHO, "echo", {"text": text})
    assert events("module:invoke")[0]["data"]["result"] == {"text": text}


async def test_the_frame_of_a_reply_does_not_count_as_its_result(echo, events):
    text = "x" * 8170  # with the frame and the spaces of the sender it is more than 8 KiB
    await echo.invoke(ECHO, "echo", {"text": text})
    assert events("module:invoke")[-1]["data"]["result"] == {"text": text}


async def test_the_limit_of_the_log_can_be_lifted(log, module, events):
    async with Kernel(event_log=log, event_limit=None) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        text = "x" * 100_000
        await session.invoke(ECHO, "echo", {"text": text})
        session.emit("my:event", {"text": text})
    assert events("module:invoke")[0]["data"]["result"] == {"text": text}
    assert events("my:event")[0]["data"] == {"text": text}


@pytest.mark.parametrize("path", ["/mnt/tools/none", "", "/mnt/tools", None, 5, []])
async def test_a_path_where_nothing_is_mounted_is_refused(echo, events, path):
    with pytest.raises(BadRequest, match="^bad_request: path: "):
        await echo.invoke(path, "echo", {})
    assert events("module:invoke")[0]["status"] == "error"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True, []])
async def test_a_timeout_that_is_no_time_is_refused(echo, timeout):
    with pytest.raises(BadRequest, match="timeout: expected a positive number of seconds"):
        await echo.invoke(ECHO, "echo", {}, timeout=timeout)


async def test_past_the_deadline_the_call_is_a_timeout_and_the_module_is_cancelled(echo, events):
    with pytest.raises(Timeout, match=f"{ECHO}: no answer within 0.1 s"):
        await echo.invoke(ECHO, "sleep", {"seconds": 30}, timeout=0.1)
    assert await echo.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert [event.get("error", {}).get("code") for event in events("module:invoke")] == ["timeout", None]
    assert len(events("module:start")) == 1


async def test_the_descriptors_limit_holds_where_the_caller_names_none_or_more(session, module):
    await session.mount("/mnt/tools", module("echo.py", limits={"timeout_ms": 100}), trusted=True)
    for timeout in (None, 30):
        with pytest.raises(Timeout, match=r"within 0\.1 s"):
            await session.invoke(ECHO, "sleep", {"seconds": 30}, timeout=timeout)


async def test_a_modules_own_error_passes_through(echo):
    with pytest.raises(KernelError) as caught:
        await echo.invoke(ECHO, "fail", {"code": "my_code", "message": "mine", "details": {"n": 1}})
    assert type(caught.value) is KernelError
    assert caught.value.body() == {"code": "my_code", "message": "mine", "details": {"n": 1, "module": ECHO}}


@pytest.mark.parametrize(
    ("code", "kind"), [("timeout", Timeout), ("forbidden", Forbidden), ("cancelled", Cancelled), ("internal", Internal)]
)
async def test_an_error_code_of_the_protocol_is_an_exception_of_its_own(echo, code, kind):
    with pytest.raises(kind):
        await echo.invoke(ECHO, "fail", {"code": code, "message": "told to"})


async def test_an_unknown_op_is_unsupported(echo):
    with pytest.raises(UnsupportedOp):
        await echo.invoke(ECHO, "nope", {})


async def test_a_module_that_dies_fails_the_call_and_is_started_again_by_the_next(echo, events):
    first = (await echo.invoke(ECHO, "pid", {}))["pid"]
    with pytest.raises(Unreachable) as caught:
        await echo.invoke(ECHO, "exit", {"code": 3})
    assert caught.value.details["exit_code"] == 3
    assert (await echo.invoke(ECHO, "pid", {}))["pid"] != first
    assert len(events("module:start")) == 2
    assert events("module:exit")[0]["data"]["exit_code"] == 3


async def test_cancelling_the_caller_is_recorded_and_leaves_the_module_usable(echo, events):
    call = asyncio.create_task(echo.invoke(ECHO, "sleep", {"seconds": 30}))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert events("module:invoke")[0]["error"]["code"] == "cancelled"
    assert await echo.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert len(events("module:start")) == 1


async def test_only_so_many_run_at_once_as_the_descriptor_allows_and_waiting_counts(session, module):
    await session.mount("/mnt/tools", module("echo.py", limits={"concurrency": 1}), trusted=True)
    first = asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 0.3}))
    await asyncio.sleep(0)
    with pytest.raises(Timeout):
        await session.invoke(ECHO, "echo", {}, timeout=0.1)
    assert await first == {"seconds": 0.3}
    assert await session.invoke(ECHO, "echo", {}) == {}


@pytest.mark.parametrize("file", ["echo.py", "echo.mjs", "echo.sh", "echo.pl"])
async def test_a_module_may_be_written_in_any_language(session, module, need, file):
    need({"mjs": "node", "pl": "perl"}.get(file.rpartition(".")[2], "sh"))
    await session.mount("/mnt/tools", module(file), trusted=True)
    results = await asyncio.gather(*(session.invoke(ECHO, "echo", {"text": f"ü {n}"}) for n in range(8)))
    assert results == [{"text": f"ü {n}"} for n in range(8)]


async def test_the_kernels_bug_is_an_event_too(echo, events, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr("amplifier_core._syscalls.invoke.result_of", broken)
    with pytest.raises(Internal, match="the kernel broke its contract: RuntimeError: broken") as caught:
        await echo.invoke(ECHO, "echo", {})
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert events("module:invoke")[0]["error"]["code"] == "internal"
