"""Budgets of memory and CPU time, with real processes that exceed them. The bounds allow for a busy machine."""

import asyncio
import sys
import time

import pytest
from tests.conftest import exits
from tests.gap import LoopGap

from amplifier_core import BudgetExceeded, Cancelled, Kernel, Oom, Plan, Unreachable
from amplifier_core._modules.budget import Budget
from amplifier_core._modules.deadline import Deadlines
from amplifier_core._modules.meter import Meter
from amplifier_core._protocol.descriptor import Limits
from amplifier_core.hookspecs import Usage
from amplifier_transport_stdio._connection import StdioConnection

HOG = "/mnt/tools/hog"
MEGABYTE = 1_000_000


@pytest.fixture
async def hog(session, module):
    async def mount(**limits):
        await session.mount("/mnt/tools", module("hog.py", limits=limits), trusted=True)
        return session

    return mount


@pytest.mark.windows
@pytest.mark.parametrize("op", ["grow", "child"])
async def test_a_module_over_its_memory_budget_is_killed_with_its_children(hog, events, op):
    session = await hog(memory_bytes=120 * MEGABYTE)
    with pytest.raises(Oom, match=r"/mnt/tools/hog used \d+ bytes of memory; .* is 120000000") as caught:
        await session.invoke(HOG, op, {})
    assert caught.value.details["limit"] == 120 * MEGABYTE < caught.value.details["memory_bytes"]
    assert await session.invoke(HOG, "fine", {}) == "fine"
    (exit_,) = await exits(events)
    assert exit_.get("signal") == "SIGKILL" or (sys.platform == "win32" and exit_["exit_code"] == 1)


async def test_memory_that_children_share_counts_once(hog, events):
    session = await hog(memory_bytes=150 * MEGABYTE)
    assert await session.invoke(HOG, "share", {"megabytes": 60, "children": 4, "seconds": 0.3}) == "share"
    assert not events("module:exit")


async def test_what_is_costly_to_weigh_does_not_hold_the_loop(hog):
    session = await hog(memory_bytes=1000 * MEGABYTE)
    async with LoopGap() as gap:
        args = {"megabytes": 60, "children": 150, "seconds": 1}
        assert await session.invoke(HOG, "share", args, timeout=60) == "share"
    assert gap.worst < 0.15


@pytest.mark.windows
async def test_an_idle_module_is_watched_too(hog, events):
    session = await hog(memory_bytes=120 * MEGABYTE)
    await session.invoke(HOG, "later", {})
    await exits(events)
    assert await session.invoke(HOG, "fine", {}) == "fine"


@pytest.mark.windows
async def test_an_invocation_over_the_cpu_budget_ends_and_the_next_is_not_charged(hog):
    session = await hog(cpu_ms=200)
    began = time.monotonic()
    with pytest.raises(BudgetExceeded, match=r"used \d+ ms of CPU time for one invocation; .* is 200") as caught:
        await session.invoke(HOG, "burn", {"milliseconds": 60_000})
    assert time.monotonic() - began < 10
    assert caught.value.details["limit"] == 200 < caught.value.details["cpu_ms"]
    assert await session.invoke(HOG, "burn", {"milliseconds": 1}) == "burn"


async def test_an_invocation_is_charged_for_all_its_turns(hog, events):
    session = await hog(cpu_ms=1000)
    assert await session.invoke(HOG, "turns", {"milliseconds": 100, "count": 2}) == "turns"
    with pytest.raises(BudgetExceeded) as caught:
        await session.invoke(HOG, "turns", {"milliseconds": 100, "count": 1000})
    assert 1000 < caught.value.details["cpu_ms"] < 1500  # at most one turn runs between two samples
    assert await session.invoke(HOG, "turns", {"milliseconds": 100, "count": 2}) == "turns"
    assert [event["status"] for event in events("module:invoke")] == ["ok", "error", "ok"]


async def test_a_module_that_dies_under_a_budget_is_unreachable_and_starts_again(hog):
    session = await hog(cpu_ms=10_000, memory_bytes=500 * MEGABYTE)
    with pytest.raises(Unreachable, match="exit code 3"):
        await session.invoke(HOG, "exit", {})
    assert await session.invoke(HOG, "fine", {}) == "fine"


async def test_a_budget_that_a_connection_cannot_keep_is_named(session, module, events, monkeypatch):
    monkeypatch.setattr(StdioConnection, "usage", lambda self, *, exact: None)
    for name, limits in (("a", {"memory_bytes": 1, "cpu_ms": 1}), ("b", {"cpu_ms": 1}), ("c", {"timeout_ms": 9000})):
        await session.mount("/mnt/tools", module("echo.py", name=name, limits=limits), trusted=True)
    added = [event["data"].get("unenforced") for event in events("mount:add")]
    assert added == [["limits.memory_bytes", "limits.cpu_ms"], ["limits.cpu_ms"], None]


class Metered:
    """A connection whose ``usage`` gives the readings of a list, one after the other; an exception is raised."""

    def __init__(self, *readings):
        self.readings = list(readings)
        self.exact = []
        self.killed = []

    def usage(self, *, exact):
        reading = (self.exact if exact else self.readings).pop(0)
        if isinstance(reading, Exception):
            raise reading
        return reading and Usage(*reading)

    def kill(self, error):
        self.killed.append(error)


@pytest.fixture
async def budget():
    """Make a budget with the readings of its connection, which nothing reads but the tests and what they call."""
    made = []
    meter = Meter()

    def make(*readings, **limits):
        connection = Metered(*readings)
        made.append(Budget("/mnt/tools/m", connection, Limits(**limits), meter))  # type: ignore[arg-type]
        return made[-1], connection

    yield make
    for each in made:
        each.close()
    await meter.close()


@pytest.fixture
async def never(monkeypatch):
    """Let no timer look while a test counts the readings."""
    monkeypatch.setattr("amplifier_core._modules.budget._BUSY_SECONDS", 60)


@pytest.mark.usefixtures("never")
async def test_invocations_at_the_same_time_share_the_cost(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, _ = budget((0.0, 0), (10.0, 0), (30.0, 0), (40.0, 0), cpu_ms=100)
    with deadlines.within(5, "a") as a, deadlines.within(5, "b") as b:
        async with watched.charged(a):  # 0
            async with watched.charged(b):  # 10
                pass  # 30
            assert (a.cpu_ms, b.cpu_ms) == (20, 10)
        assert (a.cpu_ms, b.cpu_ms) == (30, 10)
    deadlines.close()


@pytest.mark.usefixtures("never")
async def test_the_turns_of_an_invocation_add_up_without_the_cost_of_others(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, _ = budget((0.0, 0), (60.0, 0), (500.0, 0), (540.0, 0), (540.0, 0), (541.0, 0), cpu_ms=100)
    with pytest.raises(BudgetExceeded, match="used 101 ms"), deadlines.within(5, "a") as a:
        for expected in (60, 100, 101):
            async with watched.charged(a):
                pass
            assert a.cpu_ms == expected
    deadlines.close()


@pytest.mark.usefixtures("never")
async def test_a_new_process_begins_at_zero_and_a_cancelled_request_is_not_charged(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, _ = budget((50.0, 0), None, (7.0, 0), (3.0, 0), (90.0, 0, True), (95.0, 0), cpu_ms=100)
    with deadlines.within(5, "a") as a:
        async with watched.charged(a):
            for expected in (0, 7, 10, 10):
                await watched._sample()
                assert a.cpu_ms == expected
        assert a.cpu_ms == 15
    deadlines.close()


@pytest.mark.usefixtures("never")
async def test_a_reply_over_the_budget_is_not_returned(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, _ = budget((0.0, 0), (101.0, 0), cpu_ms=100)
    with pytest.raises(BudgetExceeded, match="used 101 ms"), deadlines.within(5, "a") as a:
        async with watched.charged(a):
            pass
    deadlines.close()


async def test_the_timer_ends_invocations_over_the_budget_and_stops_when_none_runs(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, connection = budget((0.0, 0), (50.0, 0), (101.0, 0), (102.0, 0), cpu_ms=100)
    with pytest.raises(BudgetExceeded), deadlines.within(5, "a") as a:
        async with watched.charged(a):
            await asyncio.sleep(60)
    connection.readings = [(103.0, 0)]
    await watched._check()
    assert connection.readings == []
    assert watched._look is None
    deadlines.close()


async def test_an_invocation_that_begins_during_a_look_is_looked_at_afterwards(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, connection = budget((0.0, 0), (0.0, 0), (101.0, 0), cpu_ms=100)
    watched._tick()
    with pytest.raises(BudgetExceeded), deadlines.within(5, "a") as a:
        async with watched.charged(a):
            await asyncio.sleep(60)
    assert connection.readings == []
    deadlines.close()


@pytest.mark.usefixtures("never")
async def test_an_invocation_without_a_limit_of_cpu_time_waits_for_no_sample(budget):
    deadlines = Deadlines(asyncio.get_running_loop())
    watched, connection = budget((0.0, 0), memory_bytes=100)
    with deadlines.within(5, "a") as a:
        async with watched.charged(a):
            pass
    assert len(connection.readings) == 1
    deadlines.close()


EXACT = [([None], 0), ([(0, 10)], 0), ([(0, 11), (0, 9)], 0), ([(0, 11), (0, 12)], 1)]


@pytest.mark.parametrize(("exact", "killed"), EXACT)
async def test_memory_is_measured_exactly_and_twice_before_a_module_is_killed(budget, exact, killed):
    watched, connection = budget((0.0, 11), memory_bytes=10)
    connection.exact = exact
    await watched._check()
    weighing = watched._weighing
    watched._count(Usage(0.0, 11))  # it is being weighed already
    await weighing
    assert [error.details for error in connection.killed] == [{"memory_bytes": 12, "limit": 10}] * killed
    assert not connection.exact
    assert watched._weighing is None


async def test_a_module_that_cannot_be_measured_any_more_is_killed(budget):
    error = Oom("too many")
    watched, connection = budget(error, ValueError("not now"), (5.0, 0), memory_bytes=10)
    for _ in range(3):
        await watched._sample()
    assert connection.killed == [error]
    assert watched._cpu_ms == 5


async def test_what_is_costly_to_measure_is_measured_rarely(budget, monkeypatch):
    watched, connection = budget((0.0, 0), memory_bytes=10)
    monkeypatch.setattr(connection, "usage", lambda *, exact: _burn(0.05))
    await watched._check()
    assert watched._timer.when() - asyncio.get_running_loop().time() > 0.4


def _burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def test_the_session_ends_while_a_budget_is_watched(log, module):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount(
            "/mnt/tools", module("hog.py", limits={"memory_bytes": 10**9, "cpu_ms": 10**6}), trusted=True
        )
        burning = asyncio.create_task(session.invoke(HOG, "burn", {"milliseconds": 60_000}))
        await asyncio.sleep(0)
        await kernel.session.end(session.session_id)
        with pytest.raises(Cancelled):
            await burning
