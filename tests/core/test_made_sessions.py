"""Sessions that modules make, and what a module of one session does in another: it reaches those made in it."""

import asyncio

import pytest
from tests.core.scripted import SCRIPTED, call, scripted

from amplifier_core import Cancelled, Forbidden, Plan, Session, Timeout
from amplifier_core.hookspecs import TRANSPORTS

CALLER = "/mnt/orchestrators/caller"
M = "/mnt/tools/m"
WORDS = (
    *("sys:session.create", "sys:session.fork", "sys:session.end", "sys:mount", "sys:unmount", "sys:mounts"),
    *("sys:describe", "sys:invoke", "sys:emit", "sys:register_hook", "sys:context.get", "sys:context.set_fragment"),
    "net:connect:*",
)


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def start(site, session):
    """Mount a module that makes system calls, and give a function that makes them: it gives their results."""
    site.install(TRANSPORTS, "scripted", SCRIPTED)

    async def mount(*words, hook=allow, name="caller"):
        if hook:
            await session.register_hook("policy:request", hook)
        path = f"/mnt/orchestrators/{name}"
        await session.mount("/mnt/orchestrators", scripted(name, words or WORDS, kind="orchestrator"))

        async def make(*calls, at=path, **more):
            return await session.invoke(at, "call", {"syscalls": list(calls)}, **more)

        return make

    return mount


async def create(make):
    return ok(await make(call("session.create", plan={"goal": "part"})))["session_id"]


async def fork(make, parent):
    return ok(await make(call("session.fork", parent_id=parent)))["session_id"]


def ok(results):
    (result,) = results
    assert result["ok"], result
    return result["result"]


def error(results):
    (result,) = results
    return result["error"]["code"], result["error"]["message"]


def mounting(name="m", words=(), **more):
    return call("mount", path="/mnt/tools", descriptor=scripted(name, words), **more)


def through(session_id, *calls, at=M):
    """Let a module of another session make system calls."""
    return call("invoke", path=at, op="call", args={"syscalls": list(calls)}, session_id=session_id)


def seen(kernel, session_id):
    """Look at a session that a module made."""
    return Session(kernel._registry, kernel._registry.find(session_id))


async def test_every_call_is_done_in_the_session_that_it_names(start, kernel, session, events):
    make = await start()
    made = await create(make)
    assert ok(await make(mounting(session_id=made))) == {"name": "m", "path": M}
    assert [each["path"] for each in ok(await make(call("mounts", session_id=made)))] == [M]
    assert [each["path"] for each in ok(await make(call("mounts")))] == [CALLER]
    assert ok(await make(call("describe", path=M, session_id=made)))["name"] == "m"
    assert ok(await make(call("invoke", path=M, op="echo", args={"n": 1}, session_id=made))) == {"n": 1}
    ok(await make(call("context.set_fragment", key="a", value=1, session_id=made)))
    assert ok(await make(call("context.get", session_id=made))) == {"fragments": {"a": 1}}
    assert ok(await make(call("context.get"))) == {"fragments": {}}
    ok(await make(call("register_hook", event="my:*", endpoint_ref=M, priority=0, session_id=made)))
    ok(await make(call("emit", event="my:event", data={"n": 2}, session_id=made)))
    assert ok(await make(call("unmount", path=M, session_id=made))) == {"removed": [M]}
    for name in ("mount:add", "mount:remove", "context:set", "hook:register", "my:event"):
        assert events(name)[-1]["session_id"] == made, name
    assert events("my:event")[0]["component"] == CALLER
    assert session._state.namespace.observers == ()


async def test_a_fragment_for_a_fork_is_in_the_fork(start, session):
    make = await start()
    await session.context.set_fragment("kept", 1)
    forked = await fork(make, session.session_id)
    ok(await make(call("context.set_fragment", key="mine", value=2, session_id=forked)))
    assert ok(await make(call("context.get", session_id=forked))) == {"fragments": {"kept": 1, "mine": 2}}
    assert await session.context.get() == {"fragments": {"kept": 1}}


async def test_the_callers_own_session_may_be_named_and_null_is_that(start, session):
    make = await start()
    for own in (session.session_id, None):
        ok(await make(call("context.set_fragment", key="a", value=str(own), session_id=own)))
        assert await session.context.get() == {"fragments": {"a": str(own)}}


async def test_calls_in_another_session_are_in_the_tree_of_spans(start, events):
    make = await start()
    made = await create(make)
    ok(await make(mounting(session_id=made)))
    ok(await make(call("invoke", path=M, op="echo", args={}, session_id=made)))
    inner, outer = events("module:invoke")[-2:]
    assert (inner["module"], inner["session_id"]) == (M, made)
    assert (inner["request_id"], inner["parent_span_id"]) == (outer["request_id"], outer["span_id"])


async def test_sessions_are_reached_through_any_number_of_others_and_only_downwards(start, session):
    make = await start()
    made = await create(make)
    ok(await make(mounting(words=WORDS, session_id=made)))
    deeper = ok(ok(await make(through(made, call("session.create", plan={"goal": "deeper"})))))["session_id"]
    ok(await make(call("context.set_fragment", key="a", value=1, session_id=deeper)))
    assert ok(await make(call("context.get", session_id=deeper))) == {"fragments": {"a": 1}}
    beside = await create(make)
    line = f"args.session_id: no session {session.session_id!r} is open"
    for unreached in (session.session_id, beside):
        for each in ("context.get", "session.end"):
            refused = ok(await make(through(made, call(each, session_id=unreached))))
            assert error(refused) == ("bad_request", line.replace(session.session_id, unreached))
    refused = ok(await make(through(made, call("session.fork", parent_id=beside))))
    assert error(refused) == ("bad_request", f"args.parent_id: no session {beside!r} is open")
    forked = await fork(make, deeper)
    ok(await make(call("session.end", session_id=deeper)))
    assert ok(await make(call("context.get", session_id=forked))) == {"fragments": {"a": 1}}


@pytest.mark.parametrize("kind", ["others", "ended", "none", "empty"])
async def test_a_session_that_is_not_reached_is_refused_as_one_that_never_was(start, kernel, session, kind):
    make = await start()
    named = {"none": "ses_none", "empty": ""}.get(kind)
    if kind == "others":
        named = (await kernel.session.create(Plan("another"))).session_id
    if kind == "ended":
        named = await create(make)
        ok(await make(call("session.end", session_id=named)))
    for each in (
        mounting(session_id=named),
        call("unmount", path=M, session_id=named),
        call("mounts", session_id=named),
        call("describe", path=M, session_id=named),
        call("invoke", path=M, op="o", args={}, session_id=named),
        call("emit", event="a:b", data={}, session_id=named),
        call("register_hook", event="a:b", endpoint_ref=M, priority=0, session_id=named),
        call("context.get", session_id=named),
        call("context.set_fragment", key="a", value=1, session_id=named),
    ):
        assert error(await make(each)) == ("bad_request", f"args.session_id: no session {named!r} is open")
    assert await session.context.get() == {"fragments": {}}


async def test_a_call_that_makes_sessions_takes_no_session(start):
    make = await start()
    made = await create(make)
    refused = await make(call("session.create", plan={"goal": "x"}, session_id=made))
    assert error(refused) == ("bad_request", "args.session_id: session.create takes plan")


async def test_the_capabilities_are_those_of_the_caller(start, session):
    make = await start("sys:session.create", "sys:mount", "sys:mounts:/mnt/tools", "net:connect:*")
    made = await create(make)
    for each in (call("context.get", session_id=made), call("mounts", path="/mnt/agents", session_id=made)):
        assert error(await make(each))[0] == "forbidden"
    refused = await make(mounting(words=["sys:emit"], session_id=made))
    assert error(refused) == ("forbidden", f"{CALLER} was not granted sys:emit")
    ok(await make(mounting(session_id=made)))
    assert len(ok(await make(call("mounts", path="/mnt/tools", session_id=made)))) == 1


async def test_what_a_module_mounts_elsewhere_is_owed_to_it_all_the_same(start):
    make = await start()
    made = [await create(make) for _ in range(2)]
    results = [each for n in range(33) for each in await make(*(mounting(f"m{n}", session_id=each) for each in made))]
    assert [each["ok"] for each in results] == [True] * 64 + [False] * 2
    assert "has 64 modules mounted" in results[-1]["error"]["message"]


async def test_sessions_that_were_made_in_those_of_a_module_count_for_it_too(start):
    make = await start()
    made = await create(make)
    ok(await make(mounting(words=WORDS, session_id=made)))
    creating = call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 10_000}})
    inner = ok(await make(through(made, *[creating] * 65)))
    assert [each["ok"] for each in inner] == [True] * 63 + [False] * 2
    assert "one module has at most 64 sessions open that it made" in inner[-1]["error"]["message"]
    assert error(await make(creating))[1] == inner[-1]["error"]["message"]
    ok(await make(call("session.end", session_id=inner[0]["result"]["session_id"])))
    large = call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 500_000}})
    assert "plan: expected at most 1048576 bytes" in error(ok(await make(through(made, large))))[1]
    ok(await make(creating))


async def test_the_plan_of_a_fork_counts_after_its_parent_has_ended_too(start):
    """Else each plan would live on in a fork that costs nothing."""
    make = await start()
    large = call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 600_000}})
    made = ok(await make(large))["session_id"]
    forks = [await fork(make, made) for _ in range(3)]  # one plan
    ok(await make(call("session.end", session_id=made)))
    full = "plan: expected at most 1048576 bytes of JSON in all that a module has open, got 600"
    assert full in error(await make(large))[1]
    for each in forks:
        ok(await make(call("session.end", session_id=each)))
    ok(await make(large))


async def test_the_plan_of_a_fork_of_another_modules_session_counts_for_both(start):
    make, other = await start(), await start(name="other", hook=None)
    large = call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 600_000}})
    made = ok(await make(large))["session_id"]
    await fork(other, made)
    assert "plan: expected at most 1048576 bytes" in error(await other(large))[1]
    ok(await make(call("session.create", plan={"goal": "x", "inputs": {"a": "y" * 400_000}})))
    ok(await make(call("session.end", session_id=made)))
    ok(await make(large))
    made = ok(await make(call("session.create", plan={"goal": "x"})))["session_id"]
    ok(await make(mounting(words=WORDS, session_id=made)))
    for _ in range(3):  # a plan that is the session's own costs those in it nothing
        ok(ok(await make(through(made, call("session.fork", parent_id=made)))))


async def test_all_modules_of_a_session_share_the_sessions_that_were_made_in_those(start):
    for n in range(4):
        make = await start(name=f"caller{n}", hook=allow if n == 0 else None)
        made = await create(make)
        ok(await make(mounting(words=WORDS, session_id=made)))
        inner = ok(await make(through(made, *[call("session.create", plan={"goal": "x"})] * 63)))
        assert all(each["ok"] for each in inner)
    make = await start(name="more", hook=None)
    refused = await make(call("session.create", plan={"goal": "x"}))
    assert "the modules of one session have at most 256 sessions open" in error(refused)[1]


async def test_hooks_have_their_number_in_each_session(start):
    make = await start()
    made = await create(make)
    ok(await make(mounting(session_id=made)))
    results = await make(*[call("register_hook", event="a:b", endpoint_ref=M, priority=0, session_id=made)] * 65)
    assert [each["ok"] for each in results] == [True] * 64 + [False]
    ok(await make(call("register_hook", event="a:b", endpoint_ref=CALLER, priority=0)))


async def test_hooks_of_modules_in_all_sessions_that_were_made_in_one_have_a_number(start, session):
    make = await start()
    for _ in range(16):
        made = await create(make)
        ok(await make(mounting(session_id=made)))
        hook = call("register_hook", event="a:b", endpoint_ref=M, priority=0, session_id=made)
        assert all(each["ok"] for each in await make(*[hook] * 64))
        await fork(make, made)  # it has the same hooks
    refused = await make(call("register_hook", event="a:b", endpoint_ref=CALLER, priority=0))
    where = f"session {session.session_id} and in those that were made in it"
    assert error(refused) == ("bad_request", f"register_hook: modules have registered 1024 hooks in {where}: the limit")
    await session.register_hook("a:b", CALLER)  # the embedder's own do not count


# --- policy


async def test_a_session_that_a_module_makes_is_under_the_policy_of_its_own(start, session, events):
    asked = []

    async def judge(event):
        asked.append((event.session_id, event.data["action"], event.data["path"], event.data.get("caller")))
        if event.data.get("args", {}).get("secret"):
            return {"decision": "deny", "reason": "not that"}
        return {"decision": "allow"}

    make = await start(hook=judge)
    made = await create(make)
    ok(await make(mounting(words=["sys:emit", "sys:invoke"], session_id=made)))
    ok(await make(mounting("plain", session_id=made)))
    asked.clear()
    inner = call("invoke", path="/mnt/tools/plain", op="echo", args={"secret": True})
    assert (
        error(ok(await make(through(made, inner))))[1]
        == f"invoke /mnt/tools/plain echo: {judge.__qualname__}: not that"
    )
    assert asked == [
        (session.session_id, "invoke", CALLER, None),
        (made, "invoke", M, CALLER),
        (made, "invoke", "/mnt/tools/plain", M),
    ]


async def test_policy_is_told_the_session_of_a_caller_that_is_in_another(start, session):
    asked = []

    async def judge(event):
        asked.append((event.data["action"], event.data["path"], event.data.get("caller_session_id")))
        return {"decision": "allow"}

    make = await start(hook=judge)
    made = await create(make)
    asked.clear()
    ok(await make(mounting(session_id=made)))
    ok(await make(call("invoke", path=M, op="echo", args={}, session_id=made)))
    ok(await make(call("context.get", session_id=made)))
    ok(await make(call("context.get")))
    assert [each for each in asked if each[:2] != ("invoke", CALLER)] == [
        ("mount", M, session.session_id),
        ("invoke", M, session.session_id),
        ("context.get", CALLER, session.session_id),
        ("context.get", CALLER, None),
    ]


async def test_a_hook_that_is_registered_later_holds_in_the_sessions_that_were_made(start, kernel, session):
    make = await start()
    made, forked = await create(make), await fork(make, session.session_id)
    for each in (made, forked):
        ok(await make(mounting(words=["sys:emit"], session_id=each)))

    async def deny(event):
        return {"decision": "deny" if event.data["path"] == M else "abstain", "reason": "no more"}

    await session.register_hook("policy:request", deny)
    for each in (made, forked):
        refused = await make(call("invoke", path=M, op="echo", args={}, session_id=each))
        assert error(refused) == ("forbidden", f"invoke {M} echo: {deny.__qualname__}: no more")


async def test_a_hook_that_is_registered_above_ends_what_goes_on_below(start, session, events):
    make = await start()
    made = await create(make)
    ok(await make(mounting(words=["sys:emit"], session_id=made)))

    async def deny(event):
        return {"decision": "deny" if event.data["path"] == M else "abstain", "reason": "no more"}

    going = asyncio.create_task(make(call("invoke", path=M, op="wait", args={"turns": 1000}, session_id=made)))
    while M not in asyncio_waits(session):
        await asyncio.sleep(0)
    await session.register_hook("policy:request", deny)
    assert error(await going) == ("forbidden", f"invoke {M} wait: {deny.__qualname__}: no more")


def asyncio_waits(session):
    return [deadline.what for deadline in session._state.runtime.deadlines.waiting]


async def test_a_hook_in_a_session_that_was_made_can_deny_what_comes_from_above(start, kernel, module, tmp_path):
    make = await start()
    made = await create(make)
    told = module("hook.py", tmp_path / "heard", "deny", kind="hook")
    await seen(kernel, made).mount("/mnt/hooks", told, trusted=True)
    hook = call("register_hook", event="policy:request", endpoint_ref="/mnt/hooks/hook", priority=0, session_id=made)
    ok(await make(hook))
    refused = await make(call("context.get", session_id=made))
    assert error(refused) == ("forbidden", f"context.get {CALLER}: /mnt/hooks/hook: denied")
    ok(await make(call("context.get")))
    ok(await make(call("session.end", session_id=made)))


async def test_a_hook_in_a_session_that_was_made_cannot_grant(start, kernel, module, tmp_path):
    async def judge(event):
        return {"decision": "abstain" if event.data["path"] == M else "allow"}

    make = await start(hook=judge)
    made = await create(make)
    told = module("hook.py", tmp_path / "heard", "allow", kind="hook")
    await seen(kernel, made).mount("/mnt/hooks", told, trusted=True)
    hook = call("register_hook", event="policy:request", endpoint_ref="/mnt/hooks/hook", priority=0, session_id=made)
    ok(await make(hook))
    refused = await make(mounting(words=["sys:emit"], session_id=made))
    assert error(refused) == ("forbidden", f"mount {M}: no policy hook allowed sys:emit")


async def test_a_module_that_a_fork_has_unmounted_denies_there_though_it_is_mounted_above(
    start, session, module, tmp_path
):
    make = await start()
    await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", "allow", kind="hook"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    forked = await fork(make, session.session_id)
    ok(await make(call("context.get", session_id=forked)))
    ok(await make(call("unmount", path="/mnt/hooks/hook", session_id=forked)))
    refused = await make(call("context.get", session_id=forked))
    assert "the hook failed: /mnt/hooks/hook is no longer mounted" in error(refused)[1]
    ok(await make(call("context.get")))


async def test_a_policy_module_is_asked_where_it_is_mounted(start, session, module, tmp_path, events):
    make = await start()
    heard = tmp_path / "heard"
    await session.mount("/mnt/hooks", module("hook.py", heard, "allow", kind="hook"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook", priority=1)
    made = await create(make)
    ok(await make(mounting(words=["sys:emit"], session_id=made)))
    asked = [each for each in events("module:invoke") if each["module"] == "/mnt/hooks/hook"]
    assert {each["session_id"] for each in asked} == {session.session_id}
    await session.unmount("/mnt/hooks/hook")
    with pytest.raises(Forbidden, match="/mnt/hooks/hook is no longer mounted"):
        await make(call("context.get", session_id=made))


async def test_a_fork_is_under_the_policy_of_its_parent_wherever_it_is_made(start, kernel, session):
    make = await start()
    made = await create(make)
    ok(await make(mounting(words=WORDS, session_id=made)))
    deeper = ok(ok(await make(through(made, call("session.create", plan={"goal": "deeper"})))))["session_id"]
    asked = []

    async def judge(event):
        asked.append(event.session_id)
        return {"decision": "abstain"}

    await seen(kernel, made).register_hook("policy:request", judge)
    forked = await fork(make, deeper)
    own = await kernel.session.fork(made)
    assert seen(kernel, forked)._state.policy is seen(kernel, deeper)._state.policy
    assert own._state.policy is seen(kernel, made)._state.policy
    await own.invoke(M, "echo", {})
    assert asked[-1] == own.session_id


async def test_hooks_of_all_sessions_are_asked_in_the_order_of_their_priorities(start, kernel, session):
    make = await start()
    made = await create(make)
    order = []

    def hook(name):
        async def ask(event):
            order.append(name)
            return {"decision": "abstain"}

        return ask

    child = seen(kernel, made)
    await session.register_hook("policy:request", hook("above 1"), priority=1)
    await child.register_hook("policy:request", hook("own 1"), priority=1)
    await child.register_hook("policy:request", hook("own -1"), priority=-1)
    await session.register_hook("policy:request", hook("above 2"), priority=2)
    ok(await make(call("context.set_fragment", key="a", value=1, session_id=made)))
    assert order[-4:] == ["own -1", "above 1", "own 1", "above 2"]


# --- ends, deadlines, depth


async def test_a_session_that_ends_during_a_call_ends_the_call_and_not_the_caller(start, kernel, events):
    make = await start()
    made = await create(make)
    ok(await make(mounting(session_id=made)))
    waiting = call("invoke", path=M, op="wait", args={"turns": 10**9}, session_id=made)
    cancelled, ended = await make(waiting, call("session.end", session_id=made))
    assert ended["ok"]
    assert error([cancelled]) == ("cancelled", f"session {made} has ended")
    assert error(await make(call("mounts", session_id=made)))[1] == f"args.session_id: no session {made!r} is open"


async def test_a_session_that_ends_while_policy_is_asked_ends_the_call(start, session):
    answered = asyncio.Event()

    async def judge(event):
        if event.data["action"] == "emit":
            await answered.wait()
        return {"decision": "allow"}

    make = await start(hook=judge)
    made = await create(make)
    emitting = call("emit", event="a:b", data={}, session_id=made)
    asked, ended = await asyncio.wait_for(make(emitting, call("session.end", session_id=made)), 4)  # policy has 5 s
    assert ended["ok"]
    assert error([asked]) == ("cancelled", f"session {made} has ended")


async def test_the_end_of_the_callers_session_reaches_calls_in_others(start, kernel, session, events):
    make = await start()
    made = await create(make)
    ok(await make(mounting(session_id=made)))
    going = asyncio.create_task(
        make(call("invoke", path=M, op="wait", args={"turns": 10**9}, session_id=made), call("mounts", session_id=made))
    )
    while M not in asyncio_waits(session):
        await asyncio.sleep(0)
    await session.end()
    with pytest.raises(Cancelled):
        await going
    assert [each["session_id"] for each in events("session:end")] == [session.session_id, made]


async def test_all_sessions_that_end_with_one_take_no_call_from_then_on(start, kernel, session):
    make = await start()
    made = await create(make)
    ok(await make(mounting(words=WORDS, session_id=made)))
    deeper = ok(ok(await make(through(made, call("session.create", plan={"goal": "deeper"})))))["session_id"]
    below = [seen(kernel, each) for each in (made, deeper)]
    ending = asyncio.create_task(session.end())
    await asyncio.sleep(0)
    assert [each._state.phase for each in below] == ["ending", "ending"]
    await ending
    assert kernel._registry.ids() == []


async def test_the_deadline_of_the_caller_holds_in_other_sessions(start, session):
    make = await start()
    made = await create(make)
    ok(await make(mounting(session_id=made)))
    waiting = call("invoke", path=M, op="wait", args={"turns": 10**9}, session_id=made)
    with pytest.raises(Timeout):
        await make(waiting, waiting, timeout=0.3)
    bounded = call("invoke", path=M, op="wait", args={"turns": 10**9}, timeout_ms=50, session_id=made)
    assert error(await make(bounded))[0] == "timeout"


async def test_invocations_through_sessions_nest_as_deep_as_in_one(start, session):
    make = await start()
    forked = await fork(make, session.session_id)
    inner = call("mounts")
    for _ in range(31):
        inner = through(forked, inner, at=CALLER) if inner["name"] == "mounts" else through(None, inner, at=CALLER)
    results = await make(inner)
    for _ in range(31):
        results = ok(results)
    assert results[0]["ok"]
    refused = await make(through(forked, inner, at=CALLER))
    while refused[0]["ok"]:
        refused = refused[0]["result"]
    assert error(refused) == ("bad_request", "path: invocations are nested more than 32 deep")


async def test_chunks_go_on_through_sessions(start, kernel, session, module):
    make = await start()
    made = await create(make)
    await seen(kernel, made).mount("/mnt/tools", module("streamer.py"), trusted=True)
    streaming = call("invoke", path="/mnt/tools/streamer", op="count", args={"to": 3}, stream=True, session_id=made)
    chunks = [chunk async for chunk in session.stream(CALLER, "call", {"syscalls": [streaming]})]
    assert len(chunks) == 3
