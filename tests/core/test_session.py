import asyncio
import contextlib
import json

import pytest

from amplifier_core import BadRequest, Cancelled, Kernel, KernelError, Plan


async def test_a_session_is_created_from_a_plan_and_recorded(kernel, events):
    session = await kernel.session.create(Plan(goal="count", inputs={"n": 1}))
    assert session.plan == Plan(goal="count", inputs={"n": 1})
    assert session.parent_id is None
    (start,) = events("session:start")
    assert start["session_id"] == session.session_id
    assert start["data"] == {"plan": {"goal": "count", "inputs": {"n": 1}}}


async def test_a_plan_may_be_a_mapping(kernel):
    session = await kernel.session.create({"goal": "count"})
    assert session.plan == Plan(goal="count")


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        ("count", "plan: expected an object, got str"),
        ({}, "plan.goal: expected text, got nothing"),
        ({"goal": 5}, "plan.goal: expected text, got int"),
        ({"goal": "\ud800"}, "plan.goal: expected Unicode text, got a lone surrogate"),
        ({"goal": "x", "inputs": []}, "plan.inputs: expected an object, got list"),
        ({"goal": "x", "inputs": {"a": {1}}}, "plan.inputs.a: expected JSON, got set"),
    ],
)
async def test_a_plan_that_does_not_fit_is_refused(kernel, plan, fault):
    with pytest.raises(BadRequest) as caught:
        await kernel.session.create(plan)
    assert caught.value.message == fault


async def test_the_values_of_a_plan_cannot_be_changed_from_outside():
    inputs = {"list": [1]}
    plan = Plan("x", inputs)
    inputs["list"].append(2)
    assert plan.inputs == {"list": [1]}


async def test_a_fork_has_its_parents_mounts_hooks_context_and_plan(kernel, session, module, events):
    heard = []

    async def observe(event):
        heard.append((event.event, event.session_id))

    await session.register_hook("session:fork", observe)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.context.set_fragment("a", [1])
    child = await kernel.session.fork(session.session_id)
    assert child.parent_id == session.session_id
    assert child.plan == session.plan
    assert await child.mounts() == await session.mounts()
    assert await child.context.get() == {"fragments": {"a": [1]}}
    assert await child.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
    (fork,) = events("session:fork")
    assert (fork["session_id"], fork["data"]) == (child.session_id, {"parent_id": session.session_id})
    assert heard == [("session:fork", child.session_id)]


async def test_changes_on_one_side_of_a_fork_are_not_seen_on_the_other(kernel, session, module):
    await session.context.set_fragment("a", 1)
    child = await kernel.session.fork(session.session_id)
    await child.context.set_fragment("a", 2)
    await session.context.set_fragment("b", 3)
    await child.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert await session.context.get() == {"fragments": {"a": 1, "b": 3}}
    assert await child.context.get() == {"fragments": {"a": 2}}
    assert await session.mounts() == []


async def test_a_fork_starts_no_process(kernel, session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    pid = (await session.invoke("/mnt/tools/echo", "pid", {}))["pid"]
    forks = [await kernel.session.fork(session.session_id) for _ in range(100)]
    assert (await forks[-1].invoke("/mnt/tools/echo", "pid", {}))["pid"] == pid


async def test_the_last_session_that_holds_a_module_closes_it(kernel, session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    child = await kernel.session.fork(session.session_id)
    await kernel.session.end(session.session_id)
    assert not events("module:exit")
    assert await child.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
    await kernel.session.end(child.session_id)
    assert len(events("module:exit")) == 1


async def test_the_end_of_a_session_cancels_its_invocations(kernel, session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    call = asyncio.create_task(session.invoke("/mnt/tools/echo", "sleep", {"seconds": 30}))
    await asyncio.sleep(0)
    await kernel.session.end(session.session_id)
    with pytest.raises(Cancelled, match="has ended"):
        await call
    (invoke,) = events("module:invoke")
    assert invoke["error"]["code"] == "cancelled"
    names = [event["event"] for event in events()]
    assert names.index("module:invoke") < names.index("session:end") < names.index("module:exit")


async def test_the_end_of_a_session_has_the_status_that_its_caller_gives(kernel, session, events):
    assert await kernel.session.end(session.session_id, "given up") == {}
    assert events("session:end")[0]["status"] == "given up"


CALLS = {
    "mount": lambda session: session.mount("/mnt/tools", {}),
    "unmount": lambda session: session.unmount("/mnt/tools"),
    "mounts": lambda session: session.mounts(),
    "describe": lambda session: session.describe("/mnt/tools/echo"),
    "invoke": lambda session: session.invoke("/mnt/tools/echo", "echo", {}),
    "register_hook": lambda session: session.register_hook("*", "/mnt/hooks/hook"),
    "context.get": lambda session: session.context.get(),
    "context.set_fragment": lambda session: session.context.set_fragment("a", 1),
}


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_after_the_end_is_refused(kernel, session, call):
    await kernel.session.end(session.session_id)
    with pytest.raises(BadRequest, match=f"^bad_request: session {session.session_id} has ended$"):
        await CALLS[call](session)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_after_close_is_refused(log, call):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
    with pytest.raises(BadRequest, match="has ended"):
        await CALLS[call](session)
    with pytest.raises(BadRequest, match="the kernel is closed"):
        session.emit("a:b")


@pytest.mark.parametrize("call", ["end", "fork"])
@pytest.mark.parametrize("session_id", ["ses_0", 5, None, []])
async def test_a_session_that_is_not_there_is_refused(kernel, call, session_id):
    with pytest.raises(BadRequest, match="session_id: no session"):
        await getattr(kernel.session, call)(session_id)


async def test_a_session_ends_once(kernel, session):
    await kernel.session.end(session.session_id)
    for call in (kernel.session.end, kernel.session.fork):
        with pytest.raises(BadRequest, match="no session"):
            await call(session.session_id)


async def test_a_session_that_is_ending_can_be_neither_forked_nor_ended_nor_used(kernel, session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    ending = asyncio.create_task(kernel.session.end(session.session_id))
    await asyncio.sleep(0)
    for call in (kernel.session.end(session.session_id), kernel.session.fork(session.session_id), session.mounts()):
        with pytest.raises(BadRequest, match="has ended"):
            await call
    await ending


async def test_a_status_that_is_no_text_is_refused_and_the_session_lives_on(kernel, session):
    with pytest.raises(BadRequest, match="status: expected text, got int"):
        await kernel.session.end(session.session_id, 5)
    assert await session.mounts() == []


async def test_an_emitted_event_is_in_the_log_when_emit_returns(session, events):
    session.emit("artifact:write", {"path": "out.txt"})
    (event,) = events("artifact:write")
    assert event["data"] == {"path": "out.txt"}
    assert event["session_id"] == session.session_id
    assert event["component"] == "kernel"


async def test_emit_needs_no_data(session, events):
    session.emit("my:event")
    assert "data" not in events("my:event")[0]


@pytest.mark.parametrize("name", ["", "Nope", "a", "a:", ":b", "a b:c", 5, None, "a:b\n"])
async def test_a_name_that_is_no_event_name_is_recorded_as_dropped(session, events, name):
    session.emit(name, {"a": 1})
    (dropped,) = events("events:dropped")
    assert dropped["error"]["code"] == "bad_request"
    assert dropped["data"] == {"event": str(name), "count": 1}


@pytest.mark.parametrize("name", ["module:invoke", "policy:decision", "session:end", "policy:request", "kernel:end"])
async def test_the_kernels_own_events_cannot_be_forged(session, events, name):
    session.emit(name, {"a": 1})
    assert not events(name)
    (dropped,) = events("events:dropped")
    assert dropped["error"] == {"code": "forbidden", "message": f"event: {name} is the kernel's own"}


async def test_emit_after_the_end_is_recorded_as_dropped(kernel, session, events):
    await kernel.session.end(session.session_id)
    session.emit("my:event")
    assert events("events:dropped")[0]["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("data", "kept", "fault"),
    [
        ({"a": 1, "b": {2}}, {"a": 1}, "data.b: expected JSON, got set"),
        ({"a": float("nan")}, None, "data.a: expected a finite number, got nan"),
        ({5: 1, "a": 2}, {"a": 2}, "data: expected text as a key, got int"),
        ([1], None, "data: expected an object, got list"),
    ],
)
async def test_a_member_that_is_not_json_is_left_out_of_an_emitted_event(session, events, data, kept, fault):
    session.emit("my:event", data)
    (event,) = events("my:event")
    assert event.get("data") == kept
    assert event["error"]["message"] == fault


async def test_a_large_value_stands_in_the_log_as_its_size(session, events):
    session.emit("my:event", {"large": "x" * 9000, "small": 1})
    assert events("my:event")[0]["data"] == {"large": {"$omitted": 9002}, "small": 1}


async def test_ten_thousand_forks_need_one_process(kernel, session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    forks = [await kernel.session.fork(session.session_id) for _ in range(10_000)]
    assert await forks[-1].invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
    await asyncio.gather(*(kernel.session.end(fork.session_id) for fork in forks))
    assert len(events("module:start")) == 1
    assert not events("module:exit")


async def test_two_tasks_use_one_session_at_once(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)

    async def work(task):
        for n in range(20):
            assert await session.invoke("/mnt/tools/echo", "echo", {"task": task, "n": n}) == {"task": task, "n": n}
            await session.context.set_fragment(f"{task}", n)

    await asyncio.gather(work(1), work(2))
    assert await session.context.get() == {"fragments": {"1": 19, "2": 19}}


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("", 1, "key: expected text, got ''"),
        (5, 1, "key: expected text, got 5"),
        ("\ud800", 1, "key: expected Unicode text, got a lone surrogate"),
        ("a", {1}, "value: expected JSON, got set"),
        ("a", b"x", "value: expected JSON, got bytes"),
        ("a", [float("inf")], "value[0]: expected a finite number, got inf"),
        ("a", "x" * 1024 * 1024, "value: expected at most 1048576 bytes of JSON in one fragment, got 1048578"),
    ],
)
async def test_a_fragment_that_does_not_fit_is_refused(session, key, value, fault):
    with pytest.raises(BadRequest) as caught:
        await session.context.set_fragment(key, value)
    assert caught.value.message == fault
    assert await session.context.get() == {"fragments": {}}


async def test_context_calls_are_events(session, events):
    await session.context.set_fragment("a", {"b": 1})
    await session.context.get()
    assert events("context:set")[0]["data"] == {"key": "a", "value": {"b": 1}}
    assert events("context:get")[0]["data"] == {"keys": 1}


async def test_a_fragment_is_a_copy(session):
    value = {"list": [1]}
    await session.context.set_fragment("a", value)
    value["list"].append(2)
    (await session.context.get())["fragments"]["a"]["list"].append(3)
    assert await session.context.get() == {"fragments": {"a": {"list": [1]}}}


async def test_errors_are_one_line_and_json(session):
    with pytest.raises(KernelError) as caught:
        await session.invoke("/mnt/tools/none", "echo", {})
    assert "\n" not in str(caught.value)
    assert json.dumps(caught.value.body())


async def test_a_typo_in_a_plan_is_in_the_log(kernel, events):
    await kernel.session.create({"goal": "x", "inputs": {}})
    await kernel.session.create({"goal": "x", "input": {}})
    assert [event["data"].get("unknown") for event in events("session:start")] == [None, ["input"]]


async def alive(events):
    started, ended = ([event["module"] for event in events(name)] for name in ("module:start", "module:exit"))
    return [path for path in started if path not in ended]


async def stubborn(event):
    """Answer, whatever cancels the question: a session that ends waits a second for such a hook."""
    for _ in range(3 if event.data.get("op") == "sleep" else 0):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
    return {"decision": "allow"}


@pytest.fixture
async def ending(kernel, session, module):
    """Give a session whose end takes a while, with the invocation that holds it up."""
    await session.register_hook("policy:request", stubborn)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    call = asyncio.create_task(session.invoke("/mnt/tools/echo", "sleep", {"seconds": 0}))
    await asyncio.sleep(0.05)
    yield session
    with contextlib.suppress(KernelError):
        await call


async def test_an_end_that_is_cancelled_goes_on(kernel, ending, events):
    end = asyncio.create_task(kernel.session.end(ending.session_id))
    await asyncio.sleep(0)
    for _ in range(2):
        end.cancel()
    with pytest.raises(asyncio.CancelledError):
        await end
    with pytest.raises(BadRequest, match="has ended"):
        await kernel.session.end(ending.session_id)
    await kernel.close()
    assert await alive(events) == []
    assert [event["status"] for event in events("session:end")] == ["ok"]


async def test_an_end_that_is_cancelled_ends_the_sessions_that_were_made_in_it(kernel, ending, module, events):
    caller = module("caller.py", kind="orchestrator", capabilities=["sys:session.fork"])
    await ending.mount("/mnt/orchestrators", caller, trusted=True)
    fork = {"name": "session.fork", "args": {"parent_id": ending.session_id}}
    await ending.invoke("/mnt/orchestrators/caller", "call", {"syscalls": [fork]})
    end = asyncio.create_task(kernel.session.end(ending.session_id))
    await asyncio.sleep(0)
    end.cancel()
    with pytest.raises(asyncio.CancelledError):
        await end
    await kernel._runtime.drain()
    assert len(events("session:end")) == 2
    assert await alive(events) == []


async def test_a_close_that_is_cancelled_twice_goes_on(kernel, ending, events):
    close = asyncio.create_task(kernel.close())
    for _ in range(2):
        await asyncio.sleep(0)
        close.cancel()
    with pytest.raises(asyncio.CancelledError):
        await close
    assert await alive(events) == []


async def test_an_unmount_that_is_cancelled_goes_on(kernel, session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    fork = await kernel.session.fork(session.session_id)
    await kernel.session.end(fork.session_id)
    unmount = asyncio.create_task(session.unmount("/mnt/tools/echo"))
    await asyncio.sleep(0)
    unmount.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unmount
    await kernel._runtime.drain()
    assert await alive(events) == []


async def test_a_hook_that_outlives_the_session_allows_nothing(kernel, session, module, events):
    """Its question was cancelled, and it answered all the same."""
    await session.register_hook("policy:request", stubborn)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    call = asyncio.create_task(session.invoke("/mnt/tools/echo", "sleep", {"seconds": 0}))
    await asyncio.sleep(0.05)
    await kernel.session.end(session.session_id)
    with pytest.raises(Cancelled, match="has ended"):
        await call
    assert events("module:invoke")[0]["status"] == "error"


@pytest.mark.parametrize("status", ["s" * 257, 5])
async def test_a_status_has_a_size(kernel, session, status):
    with pytest.raises(BadRequest, match="status: expected "):
        await kernel.session.end(session.session_id, status)
    assert len(await session.mounts()) == 0
