"""Modules that call the kernel: pending, resume, and the result of each system call."""

import asyncio
import sys
import time

import attrs
import pytest

from amplifier_core import BadRequest, Cancelled, Internal, KernelError, Session, Timeout
from amplifier_core._syscalls import table, turns

CALLER = "/mnt/orchestrators/caller"
ECHO = "/mnt/tools/echo"


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def mounted(session, module):
    """Mount an echo, and callers with the capabilities given."""
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)

    async def mount(*capabilities, name="caller"):
        descriptor = module("caller.py", name=name, kind="orchestrator", capabilities=capabilities)
        await session.mount("/mnt/orchestrators", descriptor, trusted=True)
        return session

    return mount


def call(name, /, **args):
    return {"name": name, "args": args}


def echo(n):
    return call("invoke", path=ECHO, op="echo", args={"n": n})


async def make(session, *syscalls, **more):
    result = await session.invoke(CALLER, "call", {"syscalls": list(syscalls), **more})
    return result["results"]


async def test_results_come_in_the_order_asked_and_the_state_untouched(mounted):
    session = await mounted("sys:invoke:/mnt/tools/*")
    state = {"float": 1.0, "big": 2**70, "text": "ü\u2028", "null": None}
    slow = call("invoke", path=ECHO, op="sleep", args={"seconds": 0.1})
    result = await session.invoke(CALLER, "call", {"syscalls": [slow, echo(1), echo(2)], "state": state})
    assert [each["result"] for each in result["results"]] == [{"seconds": 0.1}, {"n": 1}, {"n": 2}]
    assert result["state"] == state
    assert isinstance(result["state"]["float"], float)


async def test_the_calls_of_one_turn_run_at_once(mounted):
    session = await mounted("sys:invoke")
    began = time.monotonic()
    await make(session, *(call("invoke", path=ECHO, op="sleep", args={"seconds": 0.3}) for _ in range(10)))
    assert time.monotonic() - began < 2.5  # one after the other they take three


async def test_hundreds_of_turns(mounted):
    session = await mounted("sys:invoke")
    assert await session.invoke(CALLER, "turns", {"count": 300, "syscall": echo(1)}) == 300


async def test_a_call_that_was_not_granted_is_its_modules_result(mounted):
    session = await mounted("sys:invoke:/mnt/agents/*", "sys:emit")
    refused, done = await make(session, echo(1), call("emit", event="my:event", data={}))
    assert refused["error"]["code"] == "forbidden"
    assert refused["error"]["message"] == f"{CALLER} was not granted sys:invoke:{ECHO}"
    assert done == {"ok": True, "result": {}}


async def test_a_module_does_not_get_its_callers_capabilities(mounted):
    session = await mounted("sys:invoke")
    await mounted(name="poor")
    relay = {"path": "/mnt/orchestrators/poor", "op": "relay", "args": {"path": ECHO, "op": "echo", "args": {}}}
    with pytest.raises(KernelError, match="/mnt/orchestrators/poor was not granted"):
        await session.invoke(CALLER, "relay", relay)


async def test_an_error_of_a_system_call_is_its_modules_result(mounted):
    session = await mounted("sys:invoke")
    failed = call("invoke", path=ECHO, op="fail", args={"code": "mine", "message": "told to"})
    nowhere = call("invoke", path="/mnt/tools/none", op="x", args={})
    (first, second) = await make(session, failed, nowhere)
    assert (first["ok"], first["error"]["code"], first["error"]["message"]) == (False, "mine", "told to")
    assert second["error"]["code"] == "bad_request"


async def test_system_calls_are_in_one_tree_of_spans(mounted, events):
    session = await mounted("sys:invoke", "sys:context.set_fragment", "sys:emit", "sys:mounts")
    before = len(events())
    await make(
        session,
        echo(1),
        call("context.set_fragment", key="a", value=1),
        call("emit", event="my:event", data={"b": 2}),
        call("mounts"),
    )
    tree = events()[before:]
    assert len({event["request_id"] for event in tree}) == 1
    root = tree[-1]
    assert (root["module"], "parent_span_id" in root) == (CALLER, False)
    nested = next(event for event in tree if event.get("module") == ECHO)
    assert nested["parent_span_id"] == root["span_id"]
    emitted = next(event for event in tree if event["event"] == "my:event")
    assert (emitted["component"], emitted["span_id"], emitted["data"]) == (CALLER, root["span_id"], {"b": 2})


async def test_the_deadline_spans_all_turns(mounted, events):
    session = await mounted("sys:invoke")
    turn = call("invoke", path=ECHO, op="sleep", args={"seconds": 0.2})
    began = time.monotonic()
    with pytest.raises(Timeout):
        await session.invoke(CALLER, "turns", {"count": 100, "syscall": turn}, timeout=0.5)
    assert time.monotonic() - began < 5  # all turns take 20
    assert await session.invoke(CALLER, "turns", {"count": 1, "syscall": echo(1)}) == 1
    assert events("module:invoke")[-3]["error"]["code"] == "timeout"
    assert len(events("module:start")) == 2


async def test_cancelling_the_caller_reaches_the_calls_in_flight(mounted, events):
    session = await mounted("sys:invoke")
    sleeps = [call("invoke", path=ECHO, op="sleep", args={"seconds": 30}) for _ in range(3)]
    task = asyncio.create_task(make(session, *sleeps))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event["error"]["code"] for event in events("module:invoke")] == ["cancelled"] * 4
    assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert await make(session, echo(2)) == [{"ok": True, "result": {"n": 2}}]
    assert len(events("module:start")) == 2  # neither was killed and started again


async def test_a_module_may_be_called_back_three_deep_while_it_waits(mounted):
    session = await mounted("sys:invoke")
    await mounted("sys:invoke", name="other")
    args = {"path": ECHO, "op": "echo", "args": {"deep": True}}
    for path in (CALLER, "/mnt/orchestrators/other") * 3:
        args = {"path": path, "op": "relay", "args": args}
    assert await session.invoke(CALLER, "relay", args) == {"deep": True}


async def test_a_module_that_takes_one_invocation_at_a_time_is_free_between_its_turns(session, module):
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    one = module("caller.py", kind="orchestrator", capabilities=["sys:invoke"], limits={"concurrency": 1})
    await session.mount("/mnt/orchestrators", one, trusted=True)
    back = call("invoke", path=CALLER, op="relay", args=echo(1)["args"])
    results = await session.invoke(CALLER, "call", {"syscalls": [back] * 3}, timeout=10)
    assert [each["result"] for each in results["results"]] == [{"n": 1}] * 3


async def mount_cycle(session, syscalls, then):
    """Mount a module that answers `pending` with calls of itself, and then the Python expression given."""
    await session.register_hook("policy:request", allow)
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line); p = r.get('params', {})\n"
        "    d = {'name': 'cycle', 'kind': 'agent', 'capabilities': ['sys:invoke'], 'inputs': {}, 'outputs': {}}\n"
        "    me = {'name': 'invoke', 'args': {'path': '/mnt/agents/cycle', 'op': 'x', 'args': {}}}\n"
        "    a = {'health': {'ok': True, 'result': {'status': 'ok'}}, 'describe': {'ok': True, 'result': d}}\n"
        f"    reply = a.get(r['method']) or {{'pending': {{'syscalls': {syscalls}}}}}\n"
        f"    if 'resume' in p: reply = {then}\n"
        "    print(json.dumps({'id': r['id'], **reply}), flush=True)\n"
    )
    descriptor = {
        "name": "cycle",
        "kind": "agent",
        "capabilities": ["sys:invoke"],
        "transport": {"type": "stdio", "command": ["python3", "-c", code]},
    }
    await session.mount("/mnt/agents", descriptor, trusted=True)


async def test_a_cycle_without_end_is_stopped(session):
    await mount_cycle(session, "[me]", "p['resume']['results'][0]")
    with pytest.raises(BadRequest, match="invocations are nested more than 32 deep"):
        await session.invoke("/mnt/agents/cycle", "x", {})


async def test_a_cycle_that_branches_is_stopped_before_it_has_grown(session, events, monkeypatch):
    monkeypatch.setattr(turns, "_TREE_MAX", 100)
    await mount_cycle(session, "[me] * 9", "p['resume']['results'][0]")
    with pytest.raises(BadRequest) as caught:
        await session.invoke("/mnt/agents/cycle", "x", {})
    fault = "/mnt/agents/cycle: with its system calls more than 100 would be in progress in one request"
    assert caught.value.message == fault
    ended = events("module:invoke")
    assert 1 + 9 + 81 <= len(ended) < 1000
    assert {event["error"]["message"] for event in ended} == {fault}


async def test_system_calls_that_have_ended_are_not_in_progress(mounted, events):
    session = await mounted("sys:invoke", "sys:mounts")
    thousand = call("invoke", path=CALLER, op="call", args={"syscalls": [call("mounts")] * 1000})
    assert await session.invoke(CALLER, "turns", {"count": 5, "syscall": thousand}) == 5
    assert {event["status"] for event in events("module:invoke")} == {"ok"}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({"pending": {"syscalls": []}}, "pending without a system call"),
        ({"pending": {}}, "missing required field `syscalls`"),
        ({"pending": {"syscalls": [{"args": {}}]}}, "missing required field `name`"),
        ({"pending": {"syscalls": ["emit"]}}, "Expected `object`"),
        ({"pending": [], "state": 1}, "Expected `object | null`"),
        ({"pending": {"syscalls": [{"name": "mounts"}]}, "ok": True, "result": 1}, "none of the three shapes"),
        ({"pending": {"syscalls": [{"name": "mounts"}]}, "error": {"code": "a", "message": "b"}}, "none of the three"),
        ({"ok": True, "result": 1, "events": {}}, "Expected `array"),
    ],
)
async def test_a_reply_that_is_no_reply_breaks_the_contract(mounted, reply, fault):
    session = await mounted("sys:mounts")
    with pytest.raises(Internal) as caught:
        await session.invoke(CALLER, "raw", {"reply": reply})
    assert fault in caught.value.message


async def test_results_over_the_modules_own_limit_are_refused(session, module):
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    small = module("caller.py", name="caller", capabilities=["sys:invoke"], limits={"message_bytes": 3000})
    await session.mount("/mnt/orchestrators", small, trusted=True)
    text = "x" * 1000
    calls = [call("invoke", path=ECHO, op="echo", args={"text": text})]
    assert len(await make(session, *calls)) == 1
    with pytest.raises(BadRequest, match="the results of its system calls are more than 3000 bytes"):
        await make(session, *calls, *calls)


async def test_events_of_a_reply_are_emitted_in_the_modules_name(mounted, events):
    session = await mounted()
    emitted = [
        {"event": "artifact:write", "data": {"path": "a"}},
        {"event": "module:invoke", "data": {}},
        {"event": "nonsense"},
        {"data": {}},
        {"event": "context:pre_compact"},
    ]
    await session.invoke(CALLER, "emit", {"events": emitted})
    assert events("artifact:write")[0]["component"] == CALLER
    assert events("context:pre_compact")[0]["component"] == CALLER
    dropped = events("events:dropped")
    assert [event["error"]["code"] for event in dropped] == ["forbidden", "bad_request", "bad_request"]
    assert {event["component"] for event in dropped} == {CALLER}


async def test_events_beyond_a_thousand_in_one_reply_are_counted_in_one_event(mounted, events):
    session = await mounted()
    emitted = [{"event": "my:event", "data": {"n": n}} for n in range(1003)]
    await session.invoke(CALLER, "emit", {"events": emitted})
    assert [event["data"]["n"] for event in events("my:event")] == list(range(1000))
    (dropped,) = events("events:dropped")
    assert (dropped["component"], dropped["data"]) == (CALLER, {"count": 3})
    assert dropped["error"]["message"] == "events: expected at most 1000 in one reply, got 1003"
    assert dropped["span_id"] == events("module:invoke")[-1]["span_id"]


ALL = (
    *("sys:session.create", "sys:session.fork", "sys:session.end", "sys:mount", "sys:unmount", "sys:mounts"),
    *("sys:describe", "sys:invoke", "sys:emit", "sys:register_hook", "sys:context.get", "sys:context.set_fragment"),
)


async def test_every_system_call_answers(mounted, kernel, session, events):
    await mounted(*ALL)
    created, forked, listed, described, got = await make(
        session,
        call("session.create", plan={"goal": "mine", "inputs": {}}),
        call("session.fork", parent_id=session.session_id),
        call("mounts", path="/mnt/tools"),
        call("describe", path=ECHO),
        call("context.get"),
    )
    assert [mount["path"] for mount in listed["result"]] == [ECHO]
    assert described["result"]["name"] == "echo"
    assert got["result"] == {"fragments": {}}
    results = await make(
        session,
        call("session.end", session_id=created["result"]["session_id"], status="done"),
        call("session.end", session_id=forked["result"]["session_id"]),
        call("register_hook", event="my:*", endpoint_ref=CALLER, priority=1),
        call("context.set_fragment", key="a", value=None),
        call("unmount", path="/mnt/tools", name="echo"),
    )
    assert [result["ok"] for result in results] == [True] * 5
    assert results[-1]["result"] == {"removed": [ECHO]}
    assert {event["status"] for event in events("session:end")} == {"done", "ok"}
    assert await session.context.get() == {"fragments": {"a": None}}


async def test_the_events_of_a_session_are_in_the_span_of_the_system_call(mounted, events):
    session = await mounted(*ALL)
    (created,) = await make(session, call("session.create", plan={"goal": "mine", "inputs": {}}))
    await make(session, call("session.end", session_id=created["result"]["session_id"]))
    first, second = (event for event in events("module:invoke") if event["module"] == CALLER)
    (ended,) = events("session:end")
    started = events("session:start")[-1]
    assert (started["request_id"], started["span_id"]) == (first["request_id"], first["span_id"])
    assert (ended["request_id"], ended["span_id"]) == (second["request_id"], second["span_id"])


async def test_a_module_can_not_trust_what_it_mounts(mounted, session):
    await mounted(*ALL)
    descriptor = {
        "name": "m",
        "kind": "tool",
        "capabilities": [],
        "transport": {"type": "stdio", "command": [sys.executable]},
    }
    (result,) = await make(session, call("mount", path="/mnt/tools", descriptor=descriptor))
    assert result["error"]["code"] == "forbidden"


@pytest.mark.parametrize(
    ("name", "args", "code", "fault"),
    [
        ("session.create", {}, "bad_request", "args.plan: expected an object, got nothing"),
        ("session.create", {"plan": {"goal": 5}}, "bad_request", "plan.goal: expected text, got int"),
        ("session.fork", {"parent_id": "ses_0"}, "bad_request", "no session 'ses_0'"),
        ("session.end", {"session_id": 5}, "bad_request", "args.session_id: expected text, got int"),
        ("mount", {"path": "/mnt/tools"}, "bad_request", "args.descriptor: expected an object, got nothing"),
        ("mount", {"path": "/tmp", "descriptor": {}}, "bad_request", "path: expected one of"),
        ("unmount", {"path": "/mnt/tools", "name": 5}, "bad_request", "args.name: expected text, got int"),
        ("unmount", {"path": "/mnt/agents"}, "bad_request", "nothing is mounted"),
        ("mounts", {"path": 5}, "bad_request", "args.path: expected text, got int"),
        ("describe", {}, "bad_request", "args.path: expected text, got nothing"),
        ("describe", {"pth": ECHO}, "bad_request", "args.pth: describe takes path, session_id; is path meant?"),
        ("context.get", {"keys": ["a"]}, "bad_request", "args.keys: context.get takes session_id"),
        (
            "mounts",
            {"a": 1, "b": 2, "c": 3, "d": 4},
            "bad_request",
            "args.a, args.b, args.c: mounts takes path, session_id",
        ),
        ("session.end", {"session_id": "x", "two\nlines": 1}, "bad_request", "args.two"),
        ("unmount", {"path": "/mnt/tools", "x" * 100_000: 5}, "bad_request", "x: unmount takes path, name"),
        ("invoke", {"path": ECHO, "op": "echo"}, "bad_request", "args.args: expected an object, got nothing"),
        ("invoke", {"path": ECHO, "op": "", "args": {}}, "bad_request", "op: expected a name"),
        ("invoke", {"path": ECHO, "op": "echo", "args": {}, "timeout_ms": 0}, "bad_request", "args.timeout_ms"),
        ("invoke", {"path": ECHO, "op": "echo", "args": {}, "timeout_ms": True}, "bad_request", "args.timeout_ms"),
        ("invoke", {"path": ECHO, "op": "sleep", "args": {"seconds": 9}, "timeout_ms": 50}, "timeout", "within 0.05 s"),
        ("emit", {"event": "module:invoke", "data": {}}, "forbidden", "the kernel's own"),
        ("emit", {"event": "Nope", "data": {}}, "bad_request", "expected namespace:verb"),
        ("emit", {"event": "a:b"}, "bad_request", "args.data: expected an object, got nothing"),
        ("register_hook", {"event": "*", "endpoint_ref": "/mnt/x", "priority": 1}, "bad_request", "endpoint_ref"),
        ("context.set_fragment", {"key": "a"}, "bad_request", "args.value: expected any JSON, got nothing"),
        ("context.set_fragment", {"key": 5, "value": 1}, "bad_request", "args.key: expected text, got int"),
        ("reboot", {}, "unsupported_op", "there is no system call 'reboot'"),
        ("invoke:/mnt/tools/echo", {}, "unsupported_op", "there is no system call"),
    ],
)
async def test_a_system_call_that_does_not_fit_is_refused_in_one_line(mounted, name, args, code, fault):
    session = await mounted(*ALL)
    (result,) = await make(session, {"name": name, "args": args})
    assert result["error"]["code"] == code
    assert fault in result["error"]["message"]
    assert "\n" not in result["error"]["message"]


async def test_a_call_without_args_has_none(mounted):
    session = await mounted("sys:mounts", "sys:describe")
    for none in ({}, {"args": None}, {"args": {"path": None}}):
        (listed,) = await make(session, {"name": "mounts", **none})
        assert [mount["path"] for mount in listed["result"]] == [ECHO, CALLER]
    (refused,) = await make(session, {"name": "describe"})
    assert refused["error"]["message"] == "args.path: expected text, got nothing"


async def test_an_argument_that_nobody_knows_is_refused_before_policy_is_asked(session, module):
    asked = []

    async def policy(event):
        asked.append(event.data["action"])
        return {"decision": "allow"}

    await session.register_hook("policy:request", policy)
    capable = module("caller.py", kind="orchestrator", capabilities=["sys:emit"])
    await session.mount("/mnt/orchestrators", capable, trusted=True)
    refused, done = await make(
        session, call("emit", event="a:b", data={}, level=1), call("emit", event="a:b", data={"level": 1})
    )
    assert refused["error"] == {"code": "bad_request", "message": "args.level: emit takes event, data, session_id"}
    assert done["ok"]
    assert asked == ["mount", "invoke", "emit"]


async def test_a_state_that_is_left_out_comes_back_as_null(mounted):
    session = await mounted("sys:mounts")
    assert (await session.invoke(CALLER, "twice", {}))["resume"]["state"] is None


async def test_a_resumed_request_is_the_same_but_for_the_time_that_is_left(mounted):
    session = await mounted("sys:mounts")
    second = await session.invoke(CALLER, "twice", {"keep": True})
    resume, left = second.pop("resume"), second.pop("deadline_ms")
    first, at_first = resume["state"], resume["state"].pop("deadline_ms")
    assert second == first
    assert second.keys() == {"op", "args", "session_id", "request_id", "span_id"}
    assert 0 < left <= at_first
    assert resume["results"] == [{"ok": True, "result": await session.mounts()}]


async def test_a_module_reaches_its_own_session_and_those_that_were_made_in_it(mounted, kernel, session):
    await mounted(*ALL)
    other = await kernel.session.create({"goal": "other"})
    results = await make(
        session,
        call("session.end", session_id=other.session_id),
        call("session.fork", parent_id=other.session_id),
        call("session.end", session_id=session.session_id),
    )
    assert [result["error"]["code"] for result in results] == ["bad_request"] * 3
    assert await other.mounts() == []


async def test_policy_is_asked_about_system_calls_unless_it_allowed_them_for_the_session(session, module, events):
    asked = []

    async def policy(event):
        asked.append((event.data["action"], event.data["path"], event.data.get("caller")))
        if event.data["action"] == "context.set_fragment":
            return {"decision": "deny", "reason": f"not {event.data['args']['key']}"}
        return {"decision": "allow"}

    await session.register_hook("policy:request", policy)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    capable = module("caller.py", kind="orchestrator", capabilities=["sys:invoke", "sys:context.set_fragment"])
    await session.mount("/mnt/orchestrators", capable, trusted=True)
    asked.clear()
    done, refused = await make(session, echo(1), call("context.set_fragment", key="a", value=1))
    assert done["ok"]
    assert refused["error"]["message"] == f"context.set_fragment {CALLER}: {policy.__qualname__}: not a"
    assert sorted(asked) == [
        ("context.set_fragment", CALLER, None),
        ("invoke", CALLER, None),
        ("invoke", ECHO, CALLER),
    ]


@pytest.mark.parametrize(
    ("name", "args", "wanted", "allowed"),
    [
        ("register_hook", {"event": "*", "endpoint_ref": CALLER, "priority": 0}, "register_hook", "register_hook:a:b"),
        ("emit", {"event": "a:b", "data": {}}, "emit:a:b", "emit:a:b:c"),
        ("mounts", {}, "mounts", "mounts:/mnt/tools"),
        ("unmount", {"path": "/mnt/orchestrators"}, "unmount:/mnt/orchestrators", "unmount:/mnt/orchestrators:a"),
        ("context.get", {}, "context.get", "context.get:a"),
    ],
)
async def test_a_system_call_of_which_policy_allows_a_part_is_not_made(
    session, module, events, name, args, wanted, allowed
):
    async def policy(event):
        part = {"capabilities": [f"sys:{allowed}"]} if event.data["action"] == name else {}
        return {"decision": "allow", **part}

    await session.register_hook("policy:request", policy)
    capable = module("caller.py", kind="orchestrator", capabilities=[f"sys:{name}"])
    await session.mount("/mnt/orchestrators", capable, trusted=True)
    (refused,) = await make(session, call(name, **args))
    assert refused["error"]["code"] == "forbidden"
    assert f"sys:{wanted} was allowed in part, and is made whole or not at all" in refused["error"]["message"]
    decision = next(each["data"] for each in events("policy:decision") if each["data"]["action"] == name)
    assert (decision["decision"], decision["capabilities"]) == ("deny", [])
    assert not events("hook:register")[1:]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("register_hook", {"event": "*", "endpoint_ref": CALLER, "priority": 0}),
        ("context.set_fragment", {"key": "*", "value": 1}),
        ("context.set_fragment", {"key": "**", "value": 1}),
    ],
)
@pytest.mark.parametrize("part", ["", "*"])
async def test_a_system_call_about_an_asterisk_is_allowed_as_any_other(session, module, name, args, part):
    async def policy(event):
        return {"decision": "allow", **({"capabilities": [f"sys:{name}:*"]} if part else {})}

    await session.register_hook("policy:request", policy)
    capable = module("caller.py", kind="orchestrator", capabilities=[f"sys:{name}"])
    await session.mount("/mnt/orchestrators", capable, trusted=True)
    (made,) = await make(session, call(name, **args))
    assert made["ok"], made


async def test_a_decision_about_one_invocation_narrows_its_system_calls(session, module):
    async def policy(event):
        if event.data["action"] == "invoke" and event.data["path"] == CALLER:
            return {"decision": "allow", "capabilities": [f"sys:invoke:{ECHO}"]}
        return {"decision": "allow"}

    await session.register_hook("policy:request", policy)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/tools", module("echo.py", name="other"), trusted=True)
    capable = module("caller.py", kind="orchestrator", capabilities=["sys:invoke"])
    await session.mount("/mnt/orchestrators", capable, trusted=True)
    done, refused = await make(session, echo(1), call("invoke", path="/mnt/tools/other", op="echo", args={}))
    assert done["ok"]
    assert refused["error"]["code"] == "forbidden"


async def test_an_observer_can_not_make_system_calls(session, module, events):
    await session.register_hook("policy:request", allow)
    told = module("caller.py", kind="hook", capabilities=["sys:mounts"])
    await session.mount("/mnt/hooks", told, trusted=True)
    await session.register_hook("my:*", "/mnt/hooks/caller")
    session.emit("my:event")
    while not events("hook:error"):
        await asyncio.sleep(0.01)


async def test_the_end_of_the_session_reaches_system_calls_in_flight(mounted, kernel, session):
    await mounted("sys:invoke")
    task = asyncio.create_task(make(session, *[call("invoke", path=ECHO, op="sleep", args={"seconds": 30})] * 2))
    await asyncio.sleep(0.1)
    await kernel.session.end(session.session_id)
    with pytest.raises(Cancelled):
        await task


async def test_a_policy_hook_that_needs_a_decision_to_decide_denies(session, module, events):
    """Its system call needs a decision, for which it is called again, until the calls are nested too deep."""
    asks = (
        "import json, sys\n"
        "d = {'name': 'asker', 'kind': 'hook', 'capabilities': ['sys:context.get'], 'inputs': {}, 'outputs': {}}\n"
        "a = {'health': {'ok': True, 'result': {'status': 'ok'}}, 'describe': {'ok': True, 'result': d}}\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line)\n"
        "    reply = a.get(r['method']) or {'pending': {'syscalls': [{'name': 'context.get'}]}}\n"
        "    if 'resume' in r.get('params', {}): reply = {'ok': True, 'result': {'decision': 'allow'}}\n"
        "    if 'id' in r: print(json.dumps({'id': r['id'], **reply}), flush=True)\n"
    )
    transport = {"type": "stdio", "command": ["python3", "-c", asks]}
    asker = {"name": "asker", "kind": "hook", "capabilities": ["sys:context.get"], "transport": transport}

    async def allow_mounts(event):
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow_mounts)
    await session.mount("/mnt/hooks", asker, trusted=True)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/asker")
    began = time.monotonic()
    assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert time.monotonic() - began < 4
    denied = [event for event in events("policy:decision") if event["status"] == "error"]
    assert "nested more than 32 deep" in denied[0]["data"]["reason"]


async def test_a_policy_hook_that_mounts_a_module_each_time_denies(session, events):
    """It is called about each mount and then mounts another module, until the calls are nested too deep."""
    asks = (
        "import json, sys\n"
        "d = {'name': 'asker', 'kind': 'hook', 'capabilities': [], 'inputs': {}, 'outputs': {}}\n"
        "a = {'health': {'ok': True, 'result': {'status': 'ok'}}, 'describe': {'ok': True, 'result': d}}\n"
        "transport = {'type': 'http', 'url': 'http://127.0.0.1:9'}\n"
        "for n, line in enumerate(sys.stdin):\n"
        "    r = json.loads(line)\n"
        "    tool = {'name': f't{n}', 'kind': 'tool', 'capabilities': ['sys:emit'], 'transport': transport}\n"
        "    call = {'name': 'mount', 'args': {'path': '/mnt/tools', 'descriptor': tool}}\n"
        "    reply = a.get(r['method']) or {'pending': {'syscalls': [call]}}\n"
        "    if 'resume' in r.get('params', {}): reply = {'ok': True, 'result': {'decision': 'allow'}}\n"
        "    if 'id' in r: print(json.dumps({'id': r['id'], **reply}), flush=True)\n"
    )
    transport = {"type": "stdio", "command": ["python3", "-c", asks]}
    words = ["sys:mount", "sys:emit", "net:connect:127.0.0.1:9"]
    asker = {"name": "asker", "kind": "hook", "capabilities": words, "transport": transport}
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/hooks", asker, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/asker")
    tool = {"name": "t", "kind": "tool", "capabilities": [], "transport": {"type": "http", "url": "http://127.0.0.1:9"}}
    with pytest.raises(KernelError):
        await session.mount("/mnt/tools", tool)
    denied = [event for event in events("policy:decision") if event["status"] == "error"]
    assert "nested more than 32 deep" in denied[0]["data"]["reason"]
    assert len(events("mount:add")) == 1 + 17


async def test_a_policy_hook_that_a_module_registers_can_deny_and_not_grant(mounted, session, module, tmp_path):
    await mounted(*ALL)
    await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", "allow", kind="hook"), trusted=True)
    (done,) = await make(
        session, call("register_hook", event="policy:request", endpoint_ref="/mnt/hooks/hook", priority=1)
    )
    assert done["ok"]
    assert session._state.namespace.policy[-1].may_grant is False


async def test_the_grants_of_a_module_end_with_its_mount(mounted, kernel, session, events):
    await mounted("sys:invoke", "sys:context.set_fragment")
    await kernel.session.fork(session.session_id)
    slow = call("invoke", path=ECHO, op="sleep", args={"seconds": 0.3})
    task = asyncio.create_task(session.invoke(CALLER, "turns", {"count": 2, "syscall": slow}))
    await asyncio.sleep(0.1)
    await session.unmount(CALLER)
    assert await task == 2
    assert len([event for event in events("module:invoke") if event["module"] == ECHO]) == 1


async def test_a_system_call_after_the_unmount_is_refused(mounted, kernel, session):
    await mounted(*ALL)
    await kernel.session.fork(session.session_id)
    unmount_itself = call("unmount", path="/mnt/orchestrators", name="caller")
    (first,) = (await session.invoke(CALLER, "call", {"syscalls": [unmount_itself]}))["results"]
    assert first["ok"]
    child = await kernel.session.fork(session.session_id)
    assert [mount["path"] for mount in await child.mounts()] == [ECHO]


async def test_so_many_system_calls_at_once_break_the_contract(mounted):
    session = await mounted("sys:mounts")
    with pytest.raises(Internal, match="1001 system calls at once; the limit is 1000"):
        await make(session, *[call("mounts")] * 1001)


async def test_an_error_that_is_no_unicode_text_reaches_a_module_all_the_same(mounted, session):
    await mounted("sys:emit")

    async def odd(event):
        raise BadRequest("\ud800")

    await session.register_hook("policy:request", odd)
    with pytest.raises(KernelError):
        await make(session, call("emit", event="my:event", data={}))


async def test_a_name_that_can_not_be_shown_is_dropped_all_the_same(mounted, events):
    session = await mounted()
    nested: list = []
    for _ in range(150):
        nested = [nested]
    await session.invoke(CALLER, "emit", {"events": [{"event": nested}]})
    assert events("events:dropped")[0]["error"]["code"] == "bad_request"


async def test_sessions_that_modules_made_end_with_the_session(mounted, kernel, session, events):
    await mounted(*ALL)
    (forked,) = await make(session, call("session.fork", parent_id=session.session_id))
    await kernel.session.end(session.session_id)
    assert {event["session_id"] for event in events("session:end")} == {
        session.session_id,
        forked["result"]["session_id"],
    }
    assert len(events("module:exit")) == 2


async def test_a_session_that_is_ending_already_is_not_ended_again_with_its_creator(mounted, kernel, events):
    session = await mounted("sys:session.create")
    made = await make(session, *(call("session.create", plan={"goal": "x", "inputs": {}}) for _ in range(2)))
    first, second = (each["result"]["session_id"] for each in made)

    async def listen(event):
        pass

    await Session(kernel._registry, kernel._registry.find(first)).register_hook(
        "*", listen
    )  # its end takes a turn of the loop
    await asyncio.gather(kernel.session.end(first), kernel.session.end(session.session_id))
    ended = [event["session_id"] for event in events("session:end")]
    assert sorted(ended) == sorted([first, second, session.session_id])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("number", [10**400, 2**53 + 1, -(10**30)])
async def test_a_number_that_is_too_large_is_its_modules_result(mounted, count, number):
    session = await mounted("sys:invoke", "sys:register_hook")
    for each in (
        call("invoke", path=ECHO, op="echo", args={}, timeout_ms=number),
        call("register_hook", event="a:*", endpoint_ref=ECHO, priority=number),
    ):
        for result in await make(session, *[each] * count):
            assert result["error"]["code"] == "bad_request"
            assert result["error"]["message"].startswith("args.")
            assert "expected a" in result["error"]["message"]


@pytest.mark.parametrize(
    "each",
    [
        call("invoke", path="x" * 100_000, op="echo", args={}),
        call("session.end", session_id="x" * 2000),
        call("session.fork", parent_id="x" * 2000),
        call("register_hook", event="a:b", endpoint_ref="x" * 2000, priority=0),
        call("x" * 1_000_000),
    ],
    ids=range(5),
)
async def test_a_text_that_is_too_long_is_its_modules_result(mounted, each):
    session = await mounted("sys:invoke", "sys:session.end", "sys:session.fork", "sys:register_hook")
    (result,) = await make(session, each)
    assert result["error"]["code"] in ("bad_request", "unsupported_op")
    assert len(str(result["error"])) < 1000


async def test_two_bugs_of_the_kernel_at_once_are_one_error(mounted, monkeypatch):
    session = await mounted("sys:invoke")

    def broken(name, args, row):
        raise RuntimeError("broken")

    monkeypatch.setattr(table, "_check_args", broken)
    with pytest.raises(Internal, match="the kernel broke its contract: RuntimeError: broken"):
        await make(session, echo(1), echo(2))


async def test_results_that_are_too_large_end_the_turn_before_more_are_made(mounted, module, events):
    session = await mounted("sys:context.get", "sys:context.set_fragment")
    caller = module("caller.py", name="small", kind="orchestrator", capabilities=["sys:context.get"])
    small = attrs.evolve(caller, limits=attrs.evolve(caller.limits, message_bytes=100_000))
    await session.mount("/mnt/orchestrators", small, trusted=True)
    await session.context.set_fragment("large", "x" * 10_000)
    before = len(events("context:get"))
    with pytest.raises(BadRequest, match=r"its system calls are more than 100000 bytes \(limits.message_bytes\)"):
        await session.invoke("/mnt/orchestrators/small", "call", {"syscalls": [call("context.get")] * 1000})
    assert len(events("context:get")) - before < 20


async def test_others_have_their_turn_while_many_system_calls_are_made(mounted):
    session = await mounted("sys:mounts")
    task = asyncio.create_task(make(session, *[call("mounts")] * 1000))
    longest, last = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    assert len(await task) == 1000
    assert longest < 0.1


async def test_fragments_are_handed_out_as_they_are_kept(mounted):
    session = await mounted("sys:context.get")
    await session.context.set_fragment("a", {"n": 2**70, "text": "ü"})
    await session.context.set_fragment("b", None)
    (result,) = await make(session, call("context.get"))
    assert result["result"] == {"fragments": {"a": {"n": 2**70, "text": "ü"}, "b": None}}


async def test_the_culprit_is_named_by_the_kernel(mounted):
    session = await mounted()
    error = {"code": "oom", "message": "innocent used too much", "details": {"module": ECHO, "stderr": "planted"}}
    with pytest.raises(Internal, match="which is the kernel's own") as caught:
        await session.invoke(CALLER, "raw", {"reply": {"ok": False, "error": error}})
    assert caught.value.details == {"module": CALLER, "claimed": {"module": ECHO, "stderr": "planted"}}


async def test_a_path_that_is_none_is_named_in_short(mounted):
    session = await mounted()
    with pytest.raises(BadRequest) as caught:
        await session.invoke("x" * 1_000_000, "echo", {})
    assert len(caught.value.details["module"]) == 60


async def test_the_rest_of_the_events_of_a_cancelled_invocation_is_counted(mounted, events):
    session = await mounted()
    emitted = [{"event": "my:event", "data": {"n": n}} for n in range(100)]
    task = asyncio.create_task(session.invoke(CALLER, "emit", {"events": emitted}))
    while not events("my:event"):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (dropped,) = events("events:dropped")
    assert dropped["error"]["code"] == "cancelled"
    assert len(events("my:event")) + dropped["data"]["count"] == 100


async def test_a_name_that_is_too_long_is_dropped_and_counted(mounted, events):
    session = await mounted()
    await session.invoke(CALLER, "emit", {"events": [{"event": "a:" + "b" * 1_000_000, "data": {}}]})
    (dropped,) = events("events:dropped")
    assert dropped["data"] == {"event": "a:" + "b" * 126, "count": 1}
    assert len(dropped["error"]["message"]) < 200
