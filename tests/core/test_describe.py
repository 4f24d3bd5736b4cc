"""A module that says that it changed is asked again, by the rules of its mount, when somebody wants to know."""

import asyncio

import pytest
from tests.core.scripted import SCRIPTED, call, scripted

from amplifier_core import Forbidden, Internal, Kernel, KernelError, Plan, Timeout
from amplifier_core.hookspecs import TRANSPORTS

CHANGING = """
import asyncio

from amplifier_core.hookspecs import Connection, Message, decode, hookimpl


class Changing(Connection):
    local = False
    unenforced = ()

    def __init__(self, descriptor, notify):
        self._descriptor, self._notify = descriptor, notify
        self._told = {"inputs": {"old": {}}, "outputs": {}, "capabilities": []}
        self._asked, self._storm, self._silent = 0, False, False

    async def start(self, granted, confinement):
        self._notify("module:changed", {})

    async def request(self, method, params, chunks=None):
        await asyncio.sleep(0)
        if method == "describe":
            self._asked += 1
            if self._storm:
                self._notify("module:changed", {})
            if self._silent:
                await asyncio.get_running_loop().create_future()
            return Message(ok=True, result={"name": self._descriptor.name, "kind": self._descriptor.kind, **self._told})
        if method == "invoke":
            asked = decode(params)
            self._told |= asked["args"].get("told", {})
            self._storm = asked["args"].get("storm", False)
            self._silent = asked["args"].get("silent", False)
            for _ in range(asked["args"].get("times", 1)):
                self._notify("module:changed", {})
        return Message(ok=True, result={"status": "ok", "asked": self._asked})

    async def close(self):
        pass


@hookimpl
def open_transport(descriptor, notify):
    return Changing(descriptor, notify)
"""
M = "/mnt/tools/m"


@pytest.fixture
async def changing(site, session):
    """A session with a module that changes as it is told."""
    site.install(TRANSPORTS, "changing", CHANGING)
    fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "changing"}}
    await session.mount("/mnt/tools", fields)
    return session


async def change(session, **args):
    """Let the module change, and give how often it was asked what it is."""
    return (await session.invoke(M, "become", args))["asked"]


def ops(described):
    return list(described["inputs"])


async def test_a_module_that_says_nothing_is_not_asked_again(changing):
    for _ in range(3):
        assert ops(await changing.describe(M)) == ["old"]
    assert await change(changing) == 1


async def test_a_module_that_changed_is_asked_again_and_the_log_tells(changing, events):
    await change(changing, told={"inputs": {"new": {"type": "object"}}, "outputs": {"new": {}}})
    assert ops(await changing.describe(M)) == ["new"]
    await change(changing, told={"inputs": {"new": {}}})
    assert ops(await changing.describe(M)) == ["new"]
    of_mount, *told = events("module:changed")
    assert "data" not in of_mount  # it said so while it was mounted
    assert [event.get("status") for event in told] == ["ok"] * 4
    assert [event["data"] for event in told if "data" in event] == [
        {"added": ["new"], "removed": ["old"], "changed": []},
        {"added": [], "removed": [], "changed": ["new"]},
    ]
    assert {event["module"] for event in told} == {M}


async def test_a_storm_of_reports_is_one_event_and_one_question(changing, events):
    await change(changing, times=10_000, told={"inputs": {"new": {}}})
    assert len(events("module:changed")) == 2
    described = await asyncio.gather(*(changing.describe(M) for _ in range(20)))
    assert {tuple(ops(each)) for each in described} == {("new",)}
    assert await change(changing) == 2


async def test_a_module_that_changes_while_it_is_asked_is_asked_the_next_time(changing):
    await change(changing, storm=True)
    for _ in range(3):
        await changing.describe(M)
    assert await change(changing) == 4


WRONG = {
    "a capability more": ({"capabilities": ["net:connect:*"]}, Forbidden, "describe claims 'net:connect:\\*'"),
    "another name": ({"name": "other"}, Internal, "describe: name: descriptor says 'm', got 'other'"),
    "no operations": ({"inputs": None}, Internal, "describe: inputs: expected an object"),
    "too many": ({"inputs": {str(n): {} for n in range(16_385)}}, Internal, "expected at most 16384 ops"),
}


@pytest.mark.parametrize(("told", "kind", "fault"), WRONG.values(), ids=WRONG)
async def test_a_description_that_does_not_fit_is_refused_until_it_fits(changing, events, told, kind, fault):
    await change(changing, told=told)
    for _ in range(2):
        with pytest.raises(kind, match=fault):
            await changing.describe(M)
    last = events("module:changed")[-1]
    assert (last["status"], last["error"]["code"]) == ("error", kind.code)
    right = {"name": "m", "capabilities": [], "inputs": {"new": {}}}
    await change(changing, told=right)
    assert ops(await changing.describe(M)) == ["new"]


async def test_a_description_grants_nothing(changing):
    (before,) = await changing.mounts()
    await change(changing, told={"capabilities": ["sys:emit"]})
    with pytest.raises(Forbidden):
        await changing.describe(M)
    assert await changing.mounts() == [before]


async def test_a_fork_is_told_the_same(changing, kernel):
    fork = await kernel.session.fork(changing.session_id)
    await change(changing, told={"inputs": {"new": {}}})
    assert ops(await fork.describe(M)) == ops(await changing.describe(M)) == ["new"]
    assert await change(changing) == 2


async def test_a_module_that_asks_is_told_within_its_deadline(site, changing):
    async def allow(_event):
        return {"decision": "allow"}

    await changing.register_hook("policy:request", allow)
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    await changing.mount("/mnt/agents", scripted("a", ["sys:describe"], kind="agent"))
    await change(changing, told={"inputs": {"new": {}}})
    asking = {"syscalls": [call("describe", path=M)]}
    (told,) = await changing.invoke("/mnt/agents/a", "call", asking)
    assert ops(told["result"]) == ["new"]
    await change(changing, silent=True)
    with pytest.raises(Timeout):
        await changing.invoke("/mnt/agents/a", "call", asking, timeout=0.2)


async def test_a_module_that_is_silent_keeps_nobody_longer_than_the_kernel_waits(log, site):
    site.install(TRANSPORTS, "changing", CHANGING)
    async with Kernel(event_log=log, isolation=False, timeout=0.2) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "changing"}}
        await session.mount("/mnt/tools", fields)
        await change(session, silent=True)
        with pytest.raises(Timeout, match=f"describing {M}"):
            await session.describe(M)
        await change(session, told={"inputs": {"new": {}}})
        assert ops(await session.describe(M)) == ["new"]


async def test_the_end_of_the_session_ends_the_question(changing, kernel):
    await change(changing, silent=True)
    asking = asyncio.create_task(changing.describe(M))
    for _ in range(5):
        await asyncio.sleep(0)
    await kernel.session.end(changing.session_id)
    with pytest.raises(KernelError, match="has ended|was ended|ended"):
        await asking


async def test_an_unmount_meanwhile_leaves_nothing_to_describe(changing):
    await change(changing, told={"inputs": {"new": {}}})
    asking = asyncio.create_task(changing.describe(M))
    await asyncio.sleep(0)
    await changing.unmount(M)
    with pytest.raises(KernelError):
        await asking
