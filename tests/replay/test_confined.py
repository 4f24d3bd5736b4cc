"""Runs that go on whose modules an isolation confines."""

import asyncio
import contextlib
import json

import pytest
from tests.replay.test_compare import program

from amplifier_core import Forbidden, Kernel, Unreachable
from amplifier_core.hookspecs import AREAS, Confinement, Isolation
from amplifier_replay import replaying, resume

ECHO = "/mnt/tools/echo"


class Marked(Isolation):
    """Starts every process with a variable, and tells of it."""

    name = "marked"
    confines = AREAS

    def __init__(self, variable="one"):
        self.variable = variable
        self.closed = 0

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return tuple(word for word in capabilities if word == "net:connect:*")

    def why_unenforced(self, capability):
        return f"{capability} is too much (really)"

    def plan(self, launch, descriptor):
        if "nonesuch" in launch.command[1]:
            raise Unreachable("there is no such program")
        return Planned(self.variable)

    def close(self):
        self.closed += 1


class Planned(Confinement):
    def __init__(self, variable):
        self.shown = {"variable": variable}

    def confine(self, launch, granted):
        return type(launch)(
            command=launch.command,
            cwd=launch.cwd,
            env={**launch.env, "MARKED": self.shown["variable"]},
            fds=launch.fds,
            end=self._end,
        )

    async def _end(self):
        return {"marked": self.shown["variable"]}


async def allow(event):
    return {"decision": "allow"}


HOOKS = {"allow": allow}


def read(log):
    return [json.loads(line) for line in log.read_bytes().splitlines()]


@pytest.fixture
async def recorded(log):
    """Record a run with a confined module, and one that asks for more than the isolation can enforce."""
    async with Kernel(event_log=log, isolation=Marked(), recording=True) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.register_hook("policy:request", allow)
        with pytest.raises(Forbidden, match=r"net:connect:\* is too much \(really\)"):
            await session.mount("/mnt/tools", program("echo.py", "net", capabilities=["net:connect:*"]))
        with pytest.raises(Unreachable, match="there is no such program"):
            await session.mount("/mnt/tools", program("nonesuch.py", "none"))
        await session.mount("/mnt/tools", program("echo.py", "echo"))
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "one"
    return log


def cut(log, where):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: next(n for n, line in enumerate(lines) if where(json.loads(line))) + 1]))


async def test_such_a_run_is_replayed(recorded, again):
    await again(recorded)


async def test_a_program_gets_the_answers_of_such_modules(recorded):
    async with replaying(recorded) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.register_hook("policy:request", allow)
        for name, words in (("net", ["net:connect:*"]), ("none", ()), ("echo", ())):
            with contextlib.suppress(Forbidden, Unreachable):
                file = "nonesuch.py" if name == "none" else "echo.py"
                await session.mount("/mnt/tools", program(file, name, capabilities=words))
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "one"


async def test_a_confined_module_is_confined_again_and_so_is_one_that_is_mounted_then(recorded, again):
    cut(recorded, lambda event: event["event"] == "module:invoke")
    isolation = Marked("two")
    async with resume(recorded, hooks=HOOKS, isolation=isolation) as run:
        (session,) = run.sessions.values()
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "two"
        await session.mount("/mnt/tools", program("echo.py", "later"))
        assert (await session.invoke("/mnt/tools/later", "env", {}))["MARKED"] == "two"
        with pytest.raises(Forbidden, match=r"net:connect:\* is too much \(really\)"):
            await session.mount("/mnt/tools", program("echo.py", "net", capabilities=["net:connect:*"]))
    assert isolation.closed
    exits = [event["data"] for event in read(recorded) if event["event"] == "module:exit"]
    assert [data["marked"] for data in exits] == ["two", "two"]
    await again(recorded)


class Other(Marked):
    name = "other"


@pytest.fixture
async def confined_by_two(log):
    """Record a run with two modules, each of which another isolation has confined."""
    isolations = {"mine": Other("one")}
    async with Kernel(event_log=log, isolation=Marked(), isolations=isolations, recording=True) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", program("echo.py", "echo"))
        await session.mount("/mnt/agents", program("echo.py", "echo", "agent"), isolation="mine")
        await session.invoke(ECHO, "env", {})
    return log


async def test_each_module_is_confined_by_the_isolation_of_the_name_that_has_confined_it(confined_by_two, again):
    await again(confined_by_two)
    cut(confined_by_two, lambda event: event["event"] == "module:invoke")
    usual, other = Marked("two"), Other("three")
    async with resume(confined_by_two, hooks=HOOKS, isolation=usual, isolations={"other": other}) as run:
        (session,) = run.sessions.values()
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "two"
        assert (await session.invoke("/mnt/agents/echo", "env", {}))["MARKED"] == "three"
        await session.mount("/mnt/tools", program("echo.py", "later"), isolation="other")
        assert (await session.invoke("/mnt/tools/later", "env", {}))["MARKED"] == "three"
    assert usual.closed and other.closed
    await again(confined_by_two)


async def test_a_module_whose_isolation_does_not_work_is_not_started(confined_by_two, again):
    cut(confined_by_two, lambda event: event["event"] == "module:invoke")
    async with resume(confined_by_two, hooks=HOOKS, isolation=Marked("two"), isolations={"other": "nonesuch"}) as run:
        (session,) = run.sessions.values()
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "two"
        with pytest.raises(Unreachable, match="no isolation confines a local module on this host .*nonesuch"):
            await session.invoke("/mnt/agents/echo", "env", {})
    await again(confined_by_two)


@pytest.mark.parametrize("last", ["mount:pre_add", "policy:request", "policy:decision", "module:start"])
async def test_a_mount_that_was_going_on_is_confined(recorded, again, last):
    cut(recorded, lambda event: event["event"] == last and event["module"] == ECHO)
    async with resume(recorded, hooks=HOOKS, isolation=Marked("two")) as run:
        (session,) = run.sessions.values()
        while not await session.mounts():
            await asyncio.sleep(0.01)
        assert (await session.invoke(ECHO, "env", {}))["MARKED"] == "two"
    await again(recorded)


@pytest.mark.parametrize("last", ["mount:pre_add", "mount:add"])
async def test_without_an_isolation_nothing_is_started(recorded, again, last):
    cut(recorded, lambda event: event["event"] == last and event["module"] == ECHO)
    async with resume(recorded, hooks=HOOKS, isolation=False) as run:
        (session,) = run.sessions.values()
        await asyncio.sleep(0.1)
        for mount in await session.mounts():
            with pytest.raises(Exception, match=r"no isolation confines .*the embedder set isolation=False"):
                await session.invoke(mount["path"], "env", {})
        with pytest.raises(Forbidden, match=r"isolation"):
            await session.mount("/mnt/tools", program("echo.py", "later"))
    assert "MARKED" not in recorded.read_text().partition("kernel:resume")[2]
    await again(recorded)
