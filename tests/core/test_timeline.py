"""A policy hook that is registered while something goes on is asked before it goes on: judged from the log alone."""

import asyncio
import contextlib
import importlib

import pytest
from tests.core.scripted import SCRIPTED, call, scripted

from amplifier_core import Forbidden, Internal, Kernel, KernelError, Plan
from amplifier_core.hookspecs import ISOLATIONS, TRANSPORTS

CALLER = "/mnt/orchestrators/caller"
SLOW = "/mnt/tools/slow"
EFFECTS = ("module:start", "context:set", "context:get", "session:start", "session:fork", "my:event", "mount:remove")
"""Events that say that something was done. So do `mount:add` and `module:invoke` with the status `ok`."""

SYSCALLS = [
    call("invoke", path=SLOW, op="echo", args={"turns": 2}),
    call("context.set_fragment", key="a", value=1),
    call("emit", event="my:event", data={}),
    call("context.get"),
    call("session.create", plan={"goal": "x"}),
    call("unmount", path="/mnt/tools/other"),
]


async def allow(event):
    await asyncio.sleep(0)
    return {"decision": "allow", "scope": "session"}


async def allow_the_call(event):
    await asyncio.sleep(0)
    return {"decision": "allow"}


async def deny_all(event):
    await asyncio.sleep(0)
    return {"decision": "deny", "reason": "stop"}


def done_after_the_denial(events):
    """List the effects that are in the log after the denying hook was registered."""
    told = [event["event"] == "hook:register" and event["data"]["endpoint_ref"] == "deny_all" for event in events]
    late = events[told.index(True) + 1 :] if any(told) else []
    done = [event for event in late if event["event"] in EFFECTS]
    return done + [each for each in late if each["event"] in ("mount:add", "module:invoke") and each["status"] == "ok"]


def mounts(session):
    return session.mount("/mnt/tools", scripted("m", ["env:HOME"]))


def invokes(session):
    return session.invoke(SLOW, "echo", {"turns": 2})


async def waits(session):
    """Invoke a module that answers one request at a time, twice."""
    await asyncio.gather(invokes(session), invokes(session))


def calls(session):
    return session.invoke(CALLER, "call", {"syscalls": SYSCALLS})


async def calls_one_by_one(session):
    for each in SYSCALLS:
        await session.invoke(CALLER, "call", {"syscalls": [each]})


@pytest.mark.parametrize("first", [allow, allow_the_call])
@pytest.mark.parametrize("operation", [mounts, invokes, waits, calls, calls_one_by_one])
async def test_nothing_is_done_after_a_hook_that_denies_all_is_registered(site, kernel, events, operation, first):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    words = ["sys:invoke", "sys:context.set_fragment", "sys:emit", "sys:context.get", "sys:session.create"]
    denied, step, over = 0, 0, False
    while not over:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", first)
        await session.mount("/mnt/orchestrators", scripted("caller", [*words, "sys:unmount"], kind="orchestrator"))
        await session.mount("/mnt/tools", scripted("slow", ["env:HOME"], limits={"concurrency": 1}))
        await session.mount("/mnt/tools", scripted("other"))
        task = asyncio.ensure_future(operation(session))
        for _ in range(step):
            await asyncio.sleep(0)
        over = task.done()
        await session.register_hook("policy:request", deny_all, priority=-1)
        with contextlib.suppress(KernelError):
            await task
        denied += not over
        mine = [event for event in events() if event.get("session_id") == session.session_id]
        assert done_after_the_denial(mine) == [], f"at step {step}"
        step += 1
    assert denied > 2


ISOLATION = """
import asyncio
from amplifier_core.hookspecs import Confinement, Isolation, hookimpl

AT: dict = {}


class Waiting(Isolation):
    name = "waiting"
    confines = ("files",)

    def trial(self):
        AT.get("trial", lambda: None)()
        return ""

    def unenforced(self, capabilities):
        return ()

    def plan(self, launch, descriptor):
        AT.get("plan", lambda: None)()
        return Confined()


class Confined(Confinement):
    shown: dict = {}

    def confine(self, launch, granted):
        return launch


@hookimpl
def open_isolation(options):
    return Waiting()
"""


@pytest.mark.parametrize("place", ["trial", "plan"])
@pytest.mark.parametrize("by_module", [False, True])
async def test_nothing_starts_if_a_hook_denies_that_came_while_a_thread_worked(site, log, events, place, by_module):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    module = site.install(ISOLATIONS, "waiting", ISOLATION)
    loop = asyncio.get_running_loop()
    async with Kernel(event_log=log, isolation="waiting") as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/orchestrators", scripted("caller", ["sys:mount"], kind="orchestrator"))
        if place == "plan":  # the trial is over
            await kernel.describe_host()

        def register():
            hook = session.register_hook("policy:request", deny_all, priority=-1)
            asyncio.run_coroutine_threadsafe(hook, loop).result(5)

        importlib.import_module(module).AT[place] = register
        told = scripted("m", local=True)
        asked = call("mount", path="/mnt/tools", descriptor=told)
        with pytest.raises(Forbidden, match="stop"):
            if by_module:
                await session.invoke(CALLER, "call", {"syscalls": [asked]})
            else:
                await session.mount("/mnt/tools", told)
    assert done_after_the_denial(events()) == []


async def until_started(events, path):
    while not any(event["module"] == path for event in events("module:start")):
        await asyncio.sleep(0)


@pytest.mark.parametrize("scope", ["call", "session"])
async def test_a_hook_that_came_late_and_allows_ends_what_was_granted_for_the_session(site, session, events, scope):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await session.register_hook("policy:request", allow)
    asked = []

    async def late(event):
        asked.append((event.data["action"], event.data["capabilities"]))
        return {"decision": "allow", "scope": scope}

    mount = asyncio.create_task(session.mount("/mnt/tools", scripted("m", ["env:HOME"])))
    await until_started(events, "/mnt/tools/m")
    await session.register_hook("policy:request", late)
    await mount
    await session.invoke("/mnt/tools/m", "echo", {})
    assert asked == [("mount", ["env:HOME"]), ("invoke", ["env:HOME"])]
    first, second = events("policy:decision")[:2]
    assert (first["span_id"], second["data"]["capabilities"]) == (second["span_id"], ["env:HOME"])
    assert [answer["hook"].rpartition(".")[2] for answer in second["data"]["hooks"]] == ["late"]


async def test_a_call_that_waits_for_its_turn_asks_a_hook_that_came_late_and_waits_again(site, session, events):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", scripted("slow", ["env:HOME"], limits={"concurrency": 1}))
    calls = [asyncio.create_task(session.invoke(SLOW, "echo", {"turns": 20, "n": n})) for n in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    asked = []

    async def late(event):
        asked.append(event.data["args"]["n"])
        return {"decision": "abstain"}

    await session.register_hook("policy:request", late)
    assert await asyncio.gather(*calls) == [{"turns": 20, "n": n} for n in range(2)]
    assert sorted(asked) == [0, 1]


async def test_an_isolation_that_fails_when_it_is_asked_what_it_enforces_fails_the_mount(site, log):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    site.install(ISOLATIONS, "waiting", ISOLATION.replace("return ()", "raise OSError('no idea')"))
    async with Kernel(event_log=log, isolation="waiting") as kernel:
        session = await kernel.session.create(Plan("x"))
        with pytest.raises(Internal, match="isolation 'waiting' raised OSError: no idea"):
            await session.mount("/mnt/tools", scripted("m", ["env:HOME"], local=True))
