"""The check of sinks: ours pass, and each flaw is found, one by one."""

import asyncio
import importlib
import json
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from amplifier_core._events.jsonl import JsonlSink
from amplifier_core.testing import check_sink

pytestmark = pytest.mark.newest

OUTSIDE = Path(__file__).parents[1] / "thirdparty" / "amplifier-thirdparty-example" / "src"


class Lines:
    """A sink without a flaw, which keeps lines in memory."""

    def __init__(self, kept=None):
        self.kept = [] if kept is None else kept

    def write(self, line):
        self.kept.append(line)

    def close(self):
        pass


def problems(found):
    return {check.name: check.problem for check in found if check.problem}


async def found_in(kind, **options):
    """Give the problems of a class of sinks."""
    kept: list = []
    return problems(await check_sink(lambda: kind(kept), read=lambda: kept, **options))


async def test_a_sink_without_a_flaw_has_no_problem():
    kept: list = []
    found = await check_sink(lambda: Lines(kept), read=lambda: kept, broken=Full)
    assert problems(found) == {}
    assert {check.section for check in found} == {"7"}
    assert len({check.name for check in found}) == len(found) == 8
    assert max(map(len, kept)) > 256 * 1024


async def test_the_log_passes(tmp_path):
    path = tmp_path / "events"
    found = await check_sink(
        lambda: JsonlSink(path), read=lambda: path.read_bytes().splitlines(), broken=lambda: JsonlSink("/dev/full")
    )
    assert problems(found) == {}
    assert len(found) == 8


async def test_a_sink_from_outside_passes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(OUTSIDE)
    open_sink = importlib.import_module("amplifier_thirdparty_example.sqlite").open_sink

    def read():
        with closing(sqlite3.connect(tmp_path / "events.db")) as database:
            return [row[0] for row in database.execute("SELECT envelope FROM events ORDER BY seq")]

    def broken():
        sink = open_sink({"path": str(tmp_path / "broken.db")})
        with closing(sqlite3.connect(tmp_path / "broken.db")) as database:
            database.execute("DROP TABLE events")
        return sink

    found = await check_sink(lambda: open_sink({"path": str(tmp_path / "events.db")}), read=read, broken=broken)
    assert problems(found) == {}
    assert len(found) == 8
    for name in [name for name in sys.modules if name.startswith("amplifier_thirdparty")]:
        del sys.modules[name]


class Full(Lines):
    def write(self, line):
        raise OSError(28, "No space left on device")


class AsyncWrite(Lines):
    async def write(self, line):
        pass


class AsyncClose(Lines):
    async def close(self):
        pass


class GivesCoroutine(Lines):
    def write(self, line):
        return asyncio.sleep(0)


class ClosesLater(Lines):
    def close(self):
        return asyncio.sleep(0)


class NoClose:
    def __init__(self, kept):
        pass

    def write(self, line):
        pass


class Picky(Lines):
    def write(self, line):
        self.kept.append(json.dumps(json.loads(line) | {"module": json.loads(line)["module"]}))


class Slow(Lines):
    def write(self, line):
        time.sleep(0.01)
        self.kept.append(line)


class ClosesOnce(Lines):
    closed = False

    def close(self):
        if self.closed:
            raise ValueError("it is closed")
        self.closed = True


class Buffered(Lines):
    """What is not full is never written."""

    def __init__(self, kept):
        super().__init__(kept)
        self.buffer = []

    def write(self, line):
        self.buffer.append(line)
        if len(self.buffer) == 7:
            self.kept += self.buffer
            self.buffer = []


class Backwards(Lines):
    def write(self, line):
        self.kept.insert(0, line)


class Cuts(Lines):
    def write(self, line):
        told = json.loads(line)
        if "large" in told.get("data", {}):
            told["data"]["large"] = told["data"]["large"][:1000]
        self.kept.append(json.dumps(told))


class Torn(Lines):
    def write(self, line):
        self.kept.append(line[:-3])


class Thread(Lines):
    """Its thread ends some time after it was closed."""

    def __init__(self, kept):
        super().__init__(kept)
        self.ended = threading.Event()
        threading.Thread(target=self.ended.wait, args=(0.5,), name="sends events").start()


class Task(Lines):
    def __init__(self, kept):
        super().__init__(kept)
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(60), name="sends events")


FREE = threading.Event()


class Stuck(Lines):
    def write(self, line):
        FREE.wait(60)


class StuckAtTheEnd(Lines):
    def close(self):
        FREE.wait(60)


class Closed(Lines):
    def __init__(self, kept):
        raise OSError("no such host")


PLAIN = "write and close are plain functions"
STORED = "what was written is there, in order"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (AsyncWrite, PLAIN, "write is async, and the kernel does not await it"),
        (AsyncClose, PLAIN, "close is async, and the kernel does not await it"),
        (NoClose, PLAIN, "it has no close"),
        (GivesCoroutine, "write takes each event", "write is async"),
        (Picky, "write takes each event", 'event 1 raised KeyError: \'module\': {"id":"evt_'),
        (Slow, "write does not hold the loop up", "the median of 500: use a queue"),
        (ClosesLater, "close ends the sink", "close is async"),
        (ClosesOnce, "close may be called twice", "it raised ValueError: it is closed"),
        (Buffered, STORED, "497 events of 500 are there"),
        (Backwards, STORED, "event 1 is another one"),
        (Cuts, STORED, "event 100 is another one"),
        (Torn, STORED, "reading it raised"),
        (Thread, "close leaves nothing running", "this runs on: <Thread(sends events"),
        (Task, "close leaves nothing running", "this runs on: <Task pending name='sends events'"),
        (Closed, "it opens", "it raised OSError: no such host"),
    ],
)
async def test_each_flaw_is_found(kind, name, said):
    found = await found_in(kind, seconds=60)
    assert said in found[name]
    assert "\n" not in found[name]


async def test_writes_that_fail_in_silence_are_found():
    found = await check_sink(Lines, broken=Lines)
    assert problems(found) == {
        "a write that fails raises": "neither write nor close raised: the kernel counts that as written"
    }
    found = await check_sink(Lines, broken=lambda: Closed([]))
    assert "the broken sink did not open: OSError" in problems(found)["a write that fails raises"]


class TellsAtTheEnd(Lines):
    def close(self):
        raise OSError("lost")


async def test_a_queue_may_tell_at_its_end():
    assert problems(await check_sink(Lines, broken=TellsAtTheEnd)) == {}


@pytest.mark.parametrize(("kind", "doing"), [(Stuck, "write"), (StuckAtTheEnd, "close")])
async def test_what_does_not_end_is_left_in_bounded_time(kind, doing):
    before = set(threading.enumerate())
    FREE.clear()
    assert await found_in(kind, seconds=0.3) == {f"{doing} ends": "it had not ended after 0.3 s"}
    FREE.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
