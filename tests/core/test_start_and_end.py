"""The first and the last event of a kernel: `kernel:start` and `kernel:end`."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import amplifier_core
from amplifier_core import Internal, Kernel, Plan
from amplifier_core.testing import SteadyClock

ECHO = "/mnt/tools/echo"


class Lines:
    """A sink that keeps the events, and fails at those with one of some names."""

    def __init__(self, *fails_at):
        self._fails_at = fails_at
        self.events = []

    def write(self, line):
        event = json.loads(line)
        if event["event"] in self._fails_at:
            raise OSError(28, "No space left on device")
        self.events.append(event)

    def close(self):
        pass

    def names(self):
        return [event["event"] for event in self.events]


async def test_the_first_event_says_which_kernel_it_is(log, events):
    async with Kernel(event_log=log):
        (start,) = events("kernel:start")
    assert start["component"] == "kernel"
    assert start["seq"] == 1
    assert "session_id" not in start
    assert start["data"] == {
        "kernel": start["id"][-8:],
        "pid": os.getpid(),
        "protocol": 1,
        "versions": {"amplifier-kernel": amplifier_core.__version__, "python": sys.version.split()[0]},
        "platform": sys.platform,
    }


async def test_the_last_event_says_how_long_it_was_open(log, events):
    kernel = await Kernel(event_log=log, clock=SteadyClock()).open()
    await kernel.close()
    await kernel.close()
    (end,) = events("kernel:end")
    assert (end["status"], end.get("data")) == ("ok", None)
    assert end["duration_ms"] == pytest.approx(2, abs=0.01)  # the clock moves by 1 ms when it is read


async def test_each_sink_gets_them_first_and_last(log, module):
    sinks = [Lines(), Lines()]
    async with Kernel(event_log=log, sinks=sinks) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)

        async def observe(event):
            session.emit("my:answer", {})

        await session.register_hook("session:end", observe)
        await session.invoke(ECHO, "echo", {})
        late = threading.Thread(target=session.emit, args=("my:last", {}))
        late.start()
        late.join()  # left for the loop, which has not turned since
    for sink in sinks:
        names = sink.names()
        assert (names[0], names[-1]) == ("kernel:start", "kernel:end")
        assert {"my:last", "module:exit", "session:end", "events:dropped"} <= set(names[1:-1])
        assert not {"kernel:start", "kernel:end"} & set(names[1:-1])
    assert sinks[0].events == [json.loads(line) for line in log.read_bytes().splitlines()]


async def test_a_kernel_that_an_exception_ends_says_so(log, events):
    with pytest.raises(RuntimeError):
        async with Kernel(event_log=log):
            raise RuntimeError("mine")
    assert events("kernel:end")[0]["status"] == "error"


async def test_the_end_says_how_many_events_were_lost():
    whole, broken = Lines(), Lines("my:event")
    with pytest.raises(Internal, match="lost 2 events; sink:error has the reason"):
        async with Kernel(event_log=False, sinks=[broken, whole]) as kernel:
            session = await kernel.session.create(Plan("x"))
            session.emit("my:event", {})
            session.emit("my:event", {})
    end = whole.events[-1]
    assert (end["event"], end["status"], end["data"]) == ("kernel:end", "error", {"lost": 2})
    assert broken.events[-1] == end


async def test_nothing_comes_after_the_end_in_one_sink_if_another_one_fails_there():
    whole, broken = Lines(), Lines("kernel:end")
    with pytest.raises(Internal, match="lost 1 events: sink Lines: OSError: .*No space left on device"):
        async with Kernel(event_log=False, sinks=[broken, whole]):
            pass
    assert whole.names() == ["kernel:start", "kernel:end"]


async def test_a_sink_that_fails_at_the_start_is_told_after_it():
    whole, broken = Lines(), Lines("kernel:start")
    with pytest.raises(Internal, match="lost 1 events; sink:error has the reason"):
        async with Kernel(event_log=False, sinks=[broken, whole]):
            pass
    assert whole.names() == ["kernel:start", "sink:error", "kernel:end"]


async def test_a_pattern_may_name_them_though_no_session_hears_them(log, events, session):
    heard = []

    async def observe(event):
        heard.append(event.event)

    for pattern in ("kernel:*", "kernel:end", "kernel:start"):
        await session.register_hook(pattern, observe)
    await session.end()
    assert len(events("hook:register")) == 3
    assert heard == []


RUN = """
import asyncio, sys
from amplifier_core import Kernel, Plan
from amplifier_core.testing import SteadyClock, seeded_entropy

async def main():
    async with Kernel(event_log=sys.argv[1], clock=SteadyClock(), entropy=seeded_entropy(7)) as kernel:
        (await kernel.session.create(Plan("x"))).emit("my:event", {"n": 1})

asyncio.run(main())
"""


def test_equal_runs_of_two_processes_differ_in_the_process_alone(tmp_path):
    logs = []
    for name in ("1", "2"):
        subprocess.run([sys.executable, "-c", RUN, tmp_path / name], check=True)
        events = [json.loads(line) for line in Path(tmp_path, name).read_bytes().splitlines()]
        assert events[0]["data"].pop("pid") > 0
        logs.append(events)
    assert logs[0] == logs[1]
    assert len(logs[0]) == 5
