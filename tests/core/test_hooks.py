import asyncio
import functools
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.core.scripted import SCRIPTED, scripted

from amplifier_core import BadRequest, Forbidden, Kernel, Plan, Unreachable
from amplifier_core._syscalls.invoke import ask_module
from amplifier_core.hookspecs import TRANSPORTS

ECHO = "/mnt/tools/echo"
WANTED = "env:AMPLIFIER_TEST"


def answer(decision, **more):
    async def hook(event):
        return {"decision": decision, **more}

    return hook


@pytest.fixture
def wanting(module):
    return functools.partial(module, "echo.py", capabilities=[WANTED])


async def test_a_capability_without_an_allow_is_denied(session, wanting, events):
    with pytest.raises(
        Forbidden,
        match=f"^forbidden: mount {ECHO}: no policy hook allowed {WANTED}: none is registered on policy:request$",
    ) as caught:
        await session.mount("/mnt/tools", wanting(), trusted=True)
    assert caught.value.details == {"capabilities": [WANTED], "module": ECHO}
    (decision,) = events("policy:decision")
    assert (decision["status"], decision["data"]["decision"]) == ("error", "deny")
    assert not events("module:start")


async def test_a_policy_hook_sees_what_is_wanted(session, wanting):
    seen = []

    async def hook(event):
        seen.append(event)
        return {"decision": "allow"}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", wanting(version="0.1.0"), trusted=True)
    await session.invoke(ECHO, "echo", {"n": 1})
    mount, invoke = seen
    common = {"path": ECHO, "name": "echo", "kind": "tool", "version": "0.1.0", "trusted": True}
    wanted = {"capabilities": [WANTED], "unenforced": [WANTED]}
    descriptor = mount.data.pop("args")["descriptor"]
    assert descriptor["transport"]["command"][1].endswith("echo.py")
    assert mount.data == {"action": "mount", **common, **wanted}
    assert invoke.data == {"action": "invoke", "op": "echo", "args": {"n": 1}, **common, **wanted}
    assert (mount.event, mount.component, mount.session_id) == ("policy:request", "kernel", session.session_id)


async def test_a_hook_that_changes_its_event_changes_no_other(session, wanting):
    async def hook(event):
        event.data.get("args", {}).clear()
        event.data["capabilities"].clear()
        return {"decision": "allow"}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", wanting(), trusted=True)
    assert await session.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}


async def test_a_call_scope_is_asked_each_time_a_session_scope_once(session, wanting):
    asked = []
    scopes = iter(["call", "call", "session"])

    async def hook(event):
        asked.append(event.data["action"])
        return {"decision": "allow", "scope": next(scopes)}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", wanting(), trusted=True)
    for _ in range(4):
        await session.invoke(ECHO, "echo", {})
    assert asked == ["mount", "invoke", "invoke"]


async def test_a_grant_ends_with_the_mount(session, wanting):
    asked = []

    async def hook(event):
        asked.append(event.data["action"])
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", hook)
    for _ in range(2):
        await session.mount("/mnt/tools", wanting(), trusted=True)
        await session.invoke(ECHO, "echo", {})
        await session.unmount(ECHO)
    assert asked == ["mount", "mount"]


async def test_hooks_are_asked_by_priority_and_the_first_deny_ends_it(session, wanting, events):
    asked = []

    def hook(name, decision):
        async def ask(event):
            asked.append(name)
            return {"decision": decision, "reason": name}

        return ask

    await session.register_hook("policy:request", hook("late", "allow"), priority=20)
    await session.register_hook("policy:request", hook("deny", "deny"), priority=10)
    await session.register_hook("policy:request", hook("early", "allow"), priority=-5)
    await session.register_hook("policy:request", hook("early too", "abstain"), priority=-5)
    with pytest.raises(Forbidden, match="deny$"):
        await session.mount("/mnt/tools", wanting(), trusted=True)
    assert asked == ["early", "early too", "deny"]
    assert [hook["decision"] for hook in events("policy:decision")[0]["data"]["hooks"]] == ["allow", "abstain", "deny"]


async def test_a_deny_stops_a_module_that_wants_nothing(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.register_hook("policy:request", answer("deny", reason="closed"))
    with pytest.raises(Forbidden, match=f"invoke {ECHO} echo: .*: closed$"):
        await session.invoke(ECHO, "echo", {})


async def raises(event):
    raise RuntimeError("broken\nwith a second line")


async def cancels_itself(event):
    raise asyncio.CancelledError


async def hangs(event):
    await asyncio.Event().wait()


def returning(value):
    async def hook(event):
        return value

    return hook


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (raises, "raised RuntimeError: broken"),
        (hangs, "no answer within 0.1 s"),
        (cancels_itself, "cancelled itself"),
        (returning(None), "gave no valid answer: expected an object with a decision, got NoneType"),
        (returning({}), "gave no valid answer: decision: expected allow, deny or abstain, got None"),
        (returning({"decision": "yes"}), "gave no valid answer"),
        (returning({"decision": "allow", "scope": "ever"}), "gave no valid answer: scope"),
        (
            returning({"decision": "allow", "capabilities": ["gpu:use"]}),
            "gave no valid answer: capabilities[0]: expected",
        ),
        (returning({"decision": "allow", "capabilities": [5]}), "gave no valid answer: capabilities[0]"),
    ],
)
async def test_a_hook_that_fails_denies(log, module, events, hook, why):
    async with Kernel(event_log=log, policy_timeout=0.1) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", hook)
        with pytest.raises(Forbidden) as caught:
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert "the hook failed" in caught.value.message
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert why in events("hook:error")[0]["error"]["message"]
    assert not events("module:start")


async def test_a_decision_about_one_call_can_not_take_away_what_the_module_has(session, wanting):
    narrow: list = []

    async def hook(event):
        return {"decision": "allow", "capabilities": [] if narrow else [WANTED]}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", wanting(), trusted=True)
    await session.invoke(ECHO, "echo", {})
    narrow.append(True)
    with pytest.raises(Forbidden, match=f"hook did not allow {WANTED}"):
        await session.invoke(ECHO, "echo", {})


async def test_narrowing_a_folder_for_one_call_is_a_denial(session, module, tmp_path):
    wanted = f"fs:read:{tmp_path}"

    async def hook(event):
        narrowed = f"{wanted}/below" if event.data["action"] == "invoke" else wanted
        return {"decision": "allow", "capabilities": [narrowed]}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", module("echo.py", capabilities=[wanted]), trusted=True)
    with pytest.raises(Forbidden, match="was granted at the mount"):
        await session.invoke(ECHO, "echo", {})


async def test_an_allow_at_the_mount_can_narrow(session, module, tmp_path):
    wanted = f"fs:read:{tmp_path}"
    await session.register_hook("policy:request", answer("allow", capabilities=[f"{wanted}/below"]))
    await session.mount("/mnt/tools", module("echo.py", capabilities=[wanted]), trusted=True)
    assert (await session.mounts())[0]["capabilities"] == [f"{wanted}/below"]


async def test_a_policy_may_answer_with_its_whole_list(session, wanting):
    await session.register_hook("policy:request", answer("allow", capabilities=["env:HOME", WANTED, "sys:invoke"]))
    await session.mount("/mnt/tools", wanting(), trusted=True)
    assert (await session.mounts())[0]["capabilities"] == [WANTED]
    await session.invoke(ECHO, "echo", {})


async def test_an_allow_of_less_by_a_hook_that_is_new_ends_what_goes_on(site, session, events):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await session.register_hook("policy:request", answer("allow"))
    await session.mount("/mnt/tools", scripted("m", ["sys:emit", "sys:mounts"]))
    task = asyncio.create_task(session.invoke("/mnt/tools/m", "wait", {"turns": 100}))
    while len(events("policy:decision")) < 2:
        await asyncio.sleep(0)
    await session.register_hook("policy:request", answer("allow", capabilities=["sys:emit"]))
    with pytest.raises(Forbidden, match="did not allow sys:mounts, which was granted before"):
        await task


async def test_only_granted_variables_reach_a_module(session, wanting, monkeypatch):
    monkeypatch.setenv("AMPLIFIER_TEST", "seen")
    monkeypatch.setenv("AMPLIFIER_SECRET", "not seen")
    await session.register_hook("policy:request", answer("allow"))
    await session.mount("/mnt/tools", wanting(), trusted=True)
    env = await session.invoke(ECHO, "env", {})
    assert env["AMPLIFIER_TEST"] == "seen"
    assert "AMPLIFIER_SECRET" not in env
    assert "HOME" not in env


async def test_a_fork_can_deny_more_and_allow_no_more(kernel, session, wanting):
    child = await kernel.session.fork(session.session_id)
    await child.register_hook("policy:request", answer("allow"))
    with pytest.raises(Forbidden, match="no policy hook allowed"):
        await child.mount("/mnt/tools", wanting(), trusted=True)
    await session.register_hook("policy:request", answer("allow"))
    other = await kernel.session.fork(session.session_id)
    await other.mount("/mnt/tools", wanting(), trusted=True)
    await other.register_hook("policy:request", answer("deny"))
    with pytest.raises(Forbidden):
        await other.invoke(ECHO, "echo", {})


async def test_a_fork_inherits_grants(kernel, session, wanting):
    asked = []

    async def hook(event):
        asked.append(event.session_id)
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", hook)
    await session.mount("/mnt/tools", wanting(), trusted=True)
    child = await kernel.session.fork(session.session_id)
    await child.invoke(ECHO, "echo", {})
    assert asked == [session.session_id]


@pytest.mark.parametrize(
    ("told", "allowed"),
    [("allow", True), ('{"decision": "allow", "scope": "session"}', True), ("deny", False), ("abstain", False),
     ("garbage", False), ("fail", False), ("exit", False)],
)  # fmt: skip
async def test_a_policy_hook_may_be_a_module(session, module, wanting, tmp_path, events, told, allowed):
    heard = tmp_path / "heard"
    hook = module("hook.py", heard, told, kind="hook")
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook", priority=1)
    if allowed:
        await session.mount("/mnt/tools", wanting(), trusted=True)
    else:
        with pytest.raises(Forbidden):
            await session.mount("/mnt/tools", wanting(), trusted=True)
    (request,) = [json.loads(line) for line in heard.read_text().splitlines()]
    assert request["event"] == "policy:request"
    assert request["data"]["capabilities"] == [WANTED]
    ask, decision = events("module:invoke")[-1], events("policy:decision")[-1]
    assert ask["data"]["op"] == "on_event"
    assert ask["parent_span_id"] == decision["span_id"]
    assert ask["request_id"] == decision["request_id"]


async def test_a_policy_module_that_hangs_denies_and_is_not_waited_for(log, module, wanting, tmp_path):
    async with Kernel(event_log=log, policy_timeout=0.1) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", "hang", kind="hook"), trusted=True)
        await session.register_hook("policy:request", "/mnt/hooks/hook")
        with pytest.raises(Forbidden, match=r"no answer within 0\.1 s"):
            await session.mount("/mnt/tools", wanting(), trusted=True)


async def test_a_policy_module_that_is_unmounted_denies_from_then_on(session, module, tmp_path):
    hook = module("hook.py", tmp_path / "heard", "allow", kind="hook")
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    await session.invoke(ECHO, "echo", {})
    await session.unmount("/mnt/hooks/hook")
    with pytest.raises(Forbidden, match="/mnt/hooks/hook is no longer mounted"):
        await session.invoke(ECHO, "echo", {})


async def test_a_fork_can_not_put_its_own_module_in_the_place_of_its_parents_policy(kernel, session, module, tmp_path):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.mount("/mnt/hooks", module("hook.py", tmp_path / "a", "deny", kind="hook"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    child = await kernel.session.fork(session.session_id)
    await child.unmount("/mnt/hooks/hook")
    with pytest.raises(Forbidden):
        await child.mount("/mnt/hooks", module("hook.py", tmp_path / "b", "allow", kind="hook"), trusted=True)
    with pytest.raises(Forbidden):
        await child.invoke(ECHO, "echo", {})


class Recorder:
    def __init__(self):
        self.events = []
        self.arrived = asyncio.Condition()

    async def __call__(self, event):
        self.events.append(event)
        async with self.arrived:
            self.arrived.notify_all()

    async def names(self, count):
        async with self.arrived, asyncio.timeout(5):
            await self.arrived.wait_for(lambda: len(self.events) >= count)
        return [event.event for event in self.events]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("my:event", ["my:event"]), ("my:*", ["my:event", "my:other"]), ("*", ["hook:register", "my:event", "my:other"])],
)
async def test_observers_hear_a_name_a_prefix_or_everything(session, pattern, expected):
    recorder = Recorder()
    await session.register_hook(pattern, recorder)
    session.emit("my:event", {"n": 1})
    session.emit("my:other")
    assert await recorder.names(len(expected)) == expected


async def test_an_observer_hears_its_session_and_its_forks_alone(kernel, session):
    recorder = Recorder()
    await session.register_hook("my:*", recorder)
    other = await kernel.session.create(Plan("other"))
    child = await kernel.session.fork(session.session_id)
    for emitter in (other, child, session):
        emitter.emit("my:event")
    await recorder.names(2)
    assert [event.session_id for event in recorder.events] == [child.session_id, session.session_id]


async def test_an_observer_sees_what_the_log_shows(session, module, events):
    recorder = Recorder()
    await session.register_hook("module:invoke", recorder)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.invoke(ECHO, "echo", {"large": "x" * 9000})
    await recorder.names(1)
    (event,), (logged,) = recorder.events, events("module:invoke")
    assert event.data == logged["data"]
    assert (event.id, event.seq, event.span_id) == (logged["id"], logged["seq"], logged["span_id"])


async def test_an_observer_may_be_a_module(kernel, session, module, tmp_path, events):
    heard = tmp_path / "heard"
    await session.mount("/mnt/hooks", module("hook.py", heard, kind="hook"), trusted=True)
    await session.register_hook("my:*", "/mnt/hooks/hook")
    for n in range(100):
        session.emit("my:event", {"n": n})
    await kernel.session.end(session.session_id)
    assert [json.loads(line)["data"]["n"] for line in heard.read_text().splitlines()] == list(range(100))
    assert not events("module:invoke"), "telling an observer is not itself an event"


async def test_events_in_an_observers_reply_are_in_the_log_and_reach_no_observer(kernel, session, events):
    code = (
        "import json, sys\n"
        "d = {'name': 'm', 'kind': 'hook', 'capabilities': [], 'inputs': {}, 'outputs': {}}\n"
        "emitted = [{'event': 'my:answer', 'data': {'a': 1}}, {'event': 'hook:error'}] + [{'event': 'b:c'}] * 999\n"
        "told = {'ok': True, 'result': {}, 'events': emitted}\n"
        "a = {'health': {'ok': True, 'result': {'status': 'ok'}}, 'describe': {'ok': True, 'result': d}}\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line)\n"
        "    if 'id' in r: print(json.dumps({'id': r['id'], **a.get(r['method'], told)}), flush=True)\n"
    )
    transport = {"type": "stdio", "command": ["python3", "-c", code]}
    descriptor = {"name": "m", "kind": "hook", "capabilities": [], "transport": transport}
    recorder = Recorder()
    await session.mount("/mnt/hooks", descriptor, trusted=True)
    await session.register_hook("*", "/mnt/hooks/m")
    await session.register_hook("*", recorder)
    session.emit("my:event")
    await kernel.session.end(session.session_id)
    calls = 4  # two hook:register, my:event, session:end
    answers, dropped = events("my:answer"), events("events:dropped")
    assert len(answers) == calls
    assert {(each["component"], each["session_id"]) for each in answers} == {("/mnt/hooks/m", session.session_id)}
    assert [each["data"]["count"] for each in dropped] == [1, 1] * calls
    assert [each["error"]["code"] for each in dropped] == ["forbidden", "bad_request"] * calls
    assert {event.event for event in recorder.events} == {"hook:register", "my:event", "session:end", "module:exit"}


async def test_an_observer_that_fails_is_counted_and_goes_on(session, events):
    recorder = Recorder()

    async def fails(event):
        await recorder(event)
        raise RuntimeError("broken")

    await session.register_hook("my:*", fails)
    for _ in range(3):
        session.emit("my:event")
    await recorder.names(3)
    await asyncio.sleep(0)
    errors = events("hook:error")
    assert [error["data"]["failures"] for error in errors] == [1, 2, 3]
    assert errors[0]["error"]["message"].endswith("raised RuntimeError: broken")


async def test_an_observer_module_that_dies_fails_no_call(session, module, tmp_path, events):
    await session.mount("/mnt/hooks", module("hook.py", tmp_path / "no" / "folder", kind="hook"), trusted=True)
    await session.register_hook("my:*", "/mnt/hooks/hook")
    session.emit("my:event")
    while not events("hook:error"):
        await asyncio.sleep(0.01)
    assert events("hook:error")[0]["error"]["code"] == "unreachable"


async def test_a_slow_observer_loses_its_own_events_and_delays_no_call(log, events):
    release = asyncio.Event()

    async def slow(event):
        await release.wait()

    async with Kernel(event_log=log, observer_queue=10) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("my:*", slow)
        for n in range(100):
            session.emit("my:event", {"n": n})
        release.set()
    assert sum(event["data"]["count"] for event in events("events:dropped")) == 90
    assert len(events("my:event")) == 100


async def test_unmounting_an_observer_lets_it_hear_the_rest_and_then_no_more(session, module, tmp_path, events):
    heard = tmp_path / "heard"
    await session.mount("/mnt/hooks", module("hook.py", heard, kind="hook"), trusted=True)
    await session.register_hook("my:*", "/mnt/hooks/hook")
    for _ in range(50):
        session.emit("my:event")
    await session.unmount("/mnt/hooks/hook")
    session.emit("my:event")
    assert len(heard.read_text().splitlines()) == 50
    assert not events("hook:error")


async def test_registering_is_an_event(session, module, tmp_path, events):
    await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", kind="hook"), trusted=True)
    assert await session.register_hook("my:*", "/mnt/hooks/hook", priority=3) == {}
    assert events("hook:register")[0]["data"] == {
        "event": "my:*",
        "endpoint_ref": "/mnt/hooks/hook",
        "priority": 3,
    }


def sync_hook(event):
    return {"decision": "allow"}


@pytest.mark.parametrize(
    ("event", "endpoint", "priority", "fault"),
    [
        ("", "/mnt/hooks/x", 0, "event: expected a name, prefix:* or *, got ''"),
        ("my*", "/mnt/hooks/x", 0, "event: expected a name"),
        (None, "/mnt/hooks/x", 0, "event: expected a name"),
        ("my:*", "/mnt/hooks/x", 0, "endpoint_ref: expected an async callable or the path of a mounted module, got"),
        ("my:*", 5, 0, "endpoint_ref: expected an async callable or the path of a module, got 5"),
        ("my:*", sync_hook, 0, "endpoint_ref: expected an async callable"),
        ("my:*", answer("allow"), "1", "priority: expected an integer, got '1'"),
        ("my:*", answer("allow"), True, "priority: expected an integer, got True"),
    ],
)
async def test_a_hook_that_does_not_fit_is_refused(session, event, endpoint, priority, fault):
    with pytest.raises(BadRequest) as caught:
        await session.register_hook(event, endpoint, priority=priority)
    assert caught.value.message.startswith(fault)


async def test_a_hook_may_be_any_async_callable(session):
    class Hook:
        async def method(self, event):
            return {"decision": "abstain"}

        async def __call__(self, event):
            return {"decision": "abstain"}

    for hook in (Hook(), Hook().method, functools.partial(Hook().method)):
        assert await session.register_hook("policy:request", hook) == {}


async def test_a_hook_that_abstains_for_a_call_sees_the_next_one(session, wanting):
    async def filters(event):
        secret = "password" in str(event.data.get("args", {}).get("text"))
        return {"decision": "deny" if secret else "abstain"}

    await session.register_hook("policy:request", filters)
    await session.register_hook("policy:request", answer("allow", scope="session"))
    await session.mount("/mnt/tools", wanting(), trusted=True)
    await session.invoke(ECHO, "echo", {"text": "harmless"})
    with pytest.raises(Forbidden):
        await session.invoke(ECHO, "echo", {"text": "my password"})


async def test_a_later_hook_is_asked_in_spite_of_earlier_grants(kernel, session, wanting):
    await session.register_hook("policy:request", answer("allow", scope="session"))
    await session.mount("/mnt/tools", wanting(), trusted=True)
    child = await kernel.session.fork(session.session_id)
    await child.register_hook("policy:request", answer("deny", reason="later"))
    with pytest.raises(Forbidden, match="later"):
        await child.invoke(ECHO, "echo", {})
    await session.invoke(ECHO, "echo", {})


@pytest.fixture
async def unmounted_meanwhile(kernel, session, module):
    """Give an invocation that waits for policy while its module is unmounted. A fork keeps the module running."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(event):
        if event.data["action"] == "invoke":
            asked.set()
            await go.wait()
        return {"decision": "allow"}

    await session.register_hook("policy:request", slow)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await kernel.session.fork(session.session_id)
    call = asyncio.create_task(session.invoke(ECHO, "echo", {}))
    await asked.wait()
    await session.unmount(ECHO)
    return call, go


async def test_an_invocation_whose_module_is_unmounted_while_policy_is_asked_does_not_run(unmounted_meanwhile):
    call, go = unmounted_meanwhile
    go.set()
    with pytest.raises(BadRequest, match="was unmounted while policy was asked"):
        await call


async def test_another_module_at_the_same_path_does_not_get_the_call(unmounted_meanwhile, session, module):
    call, go = unmounted_meanwhile
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    go.set()
    with pytest.raises(BadRequest, match="was unmounted while policy was asked"):
        await call


class Odd(dict):
    def get(self, *_):
        raise RuntimeError("odd")


async def test_an_answer_that_raises_when_it_is_read_denies_with_the_error(session, module, events):
    await session.register_hook("policy:request", returning(Odd()))
    with pytest.raises(Forbidden, match="gave no valid answer: RuntimeError: odd"):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert events("hook:error")
    assert events("policy:decision")


async def test_a_caller_that_is_cancelled_while_policy_is_asked_runs_nothing(session, module, events):
    asked = asyncio.Event()

    async def slow(event):
        asked.set()
        await asyncio.sleep(60)

    await session.register_hook("policy:request", slow)
    mounting = asyncio.create_task(session.mount("/mnt/tools", module("echo.py"), trusted=True))
    await asked.wait()
    mounting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mounting
    assert not events("module:start")


async def test_a_policy_module_that_is_unmounted_denies_what_it_had_allowed_for_the_session(
    session, module, wanting, tmp_path
):
    answer = json.dumps({"decision": "allow", "scope": "session"})
    hook = module("hook.py", tmp_path / "heard", answer, kind="hook")
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    await session.mount("/mnt/tools", wanting(), trusted=True)
    await session.invoke(ECHO, "echo", {})
    await session.unmount("/mnt/hooks/hook")
    with pytest.raises(Forbidden, match="/mnt/hooks/hook is no longer mounted"):
        await session.invoke(ECHO, "echo", {})


async def test_a_policy_module_that_is_unmounted_denies_what_goes_on(session, module, wanting, tmp_path):
    hook = module("hook.py", tmp_path / "heard", "allow", kind="hook")
    await session.mount("/mnt/hooks", hook, trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/hook")
    await session.mount("/mnt/tools", wanting(), trusted=True)
    call = asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 0.3}))
    await asyncio.sleep(0.1)
    await session.unmount("/mnt/hooks/hook")
    with pytest.raises(Forbidden, match="/mnt/hooks/hook is no longer mounted"):
        await call


async def test_a_module_that_no_session_holds_is_not_asked(session):
    """An unmount marks its hooks first, so that nobody comes here: this is the second of two locks."""
    gone: Any = SimpleNamespace(path="/mnt/hooks/hook")
    with pytest.raises(Unreachable, match="/mnt/hooks/hook is no longer mounted"):
        await ask_module(session._state, session._state, gone, cast("Any", None), cast("Any", None))


async def test_many_hooks_are_registered_in_the_order_of_their_priority_and_soon(session):
    async def hook(event):
        return {"decision": "abstain"}

    began = time.process_time()
    for n in range(2000):
        await session.register_hook("policy:request", hook, priority=n % 7)
    assert time.process_time() - began < 2
    priorities = [hook.priority for hook in session._state.namespace.policy]
    assert priorities == sorted(priorities)


@pytest.mark.parametrize("priority", [2**63, -(2**64)])
async def test_a_priority_has_a_size(session, priority):
    async def hook(event):
        pass

    with pytest.raises(BadRequest, match="priority: expected an integer of at most 64 bits, got one of 6"):
        await session.register_hook("my:event", hook, priority=priority)


# --- how long it took


class MovedClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return 1_700_000_000.0

    def monotonic(self):
        return self.now

    def taking(self, seconds, then):
        """Make a hook for which this clock passes so many seconds."""

        async def hook(event):
            self.now += seconds
            return await then(event) if then else {"decision": "abstain"}

        return hook


def times(decision):
    """Give the time of a decision, and what each hook answered in which time."""
    told = [(each["decision"], each["duration_ms"]) for each in decision["data"]["hooks"]]
    return decision["duration_ms"], told


async def failing(event):
    raise RuntimeError("mine")


async def test_a_decision_says_how_long_it_took_and_what_each_hook_took(log, wanting, events):
    clock = MovedClock()
    async with Kernel(event_log=log, clock=clock) as kernel:
        session = await kernel.session.create(Plan("x"))
        for seconds, then in ((0.25, answer("allow")), (0, None), (1.5, answer("allow", scope="session"))):
            await session.register_hook("policy:request", clock.taking(seconds, then))
        await session.mount("/mnt/tools", wanting(), trusted=True)
        await session.register_hook("policy:request", clock.taking(2, failing))
        with pytest.raises(Forbidden):
            await session.invoke(ECHO, "echo", {})
        mounted, invoked = events("policy:decision")
    answers = [("allow", 250), ("abstain", 0), ("allow", 1500)]
    assert times(mounted) == (1750, answers)
    assert times(invoked) == (3750, [*answers, ("deny", 2000)])


async def test_a_decision_without_hooks_took_no_time(log, wanting, events):
    async with Kernel(event_log=log, clock=MovedClock()) as kernel:
        session = await kernel.session.create(Plan("x"))
        with pytest.raises(Forbidden):
            await session.mount("/mnt/tools", wanting(), trusted=True)
        (decision,) = events("policy:decision")
    assert times(decision) == (0, [])


async def test_a_hook_that_is_late_or_that_nobody_waits_for_any_more_is_in_the_decision(log, module, events):
    clock = MovedClock()
    asked = asyncio.Event()

    async def never(event):
        asked.set()
        await asyncio.get_running_loop().create_future()

    async with Kernel(event_log=log, clock=clock, policy_timeout=0.05) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", clock.taking(0.5, answer("allow")))
        await session.register_hook("policy:request", clock.taking(0.125, never))
        with pytest.raises(Forbidden, match="the hook failed"):
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    async with Kernel(event_log=False, sinks=[sink := Told()], clock=clock) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", clock.taking(0.5, answer("allow")))
        await session.register_hook("policy:request", clock.taking(0.125, never))
        asked.clear()
        mounting = asyncio.create_task(session.mount("/mnt/tools", module("echo.py"), trusted=True))
        await asked.wait()
        mounting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await mounting
    (late,), (cancelled,) = events("policy:decision"), sink.decisions
    for decision in (late, cancelled):
        assert times(decision) == (625, [("allow", 500), ("deny", 125)])
    assert cancelled["data"]["hooks"][1]["reason"] == "had not answered when the wait for it ended"


class Told:
    """A sink that keeps the decisions."""

    def __init__(self):
        self.decisions = []

    def write(self, line):
        event = json.loads(line)
        if event["event"] == "policy:decision":
            self.decisions.append(event)

    def close(self):
        pass
