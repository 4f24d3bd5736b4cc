"""The program, modules that change or are measured, and what is left of a log that nobody has written."""

import asyncio
import json
import sys

import pytest
from tests.replay.test_compare import CALLER, caller, program, recorded

from amplifier_core import BadRequest, Kernel, KernelError
from amplifier_core.hookspecs import Connection, Message, Usage
from amplifier_replay import Difference, __main__, replay
from amplifier_replay import _log as log_module
from amplifier_replay._answers import Answers
from amplifier_replay._differences import part
from amplifier_replay._log import Entry, Log
from amplifier_replay._produced import Produced
from amplifier_replay._real import Real
from amplifier_replay._spans import RecordedIds, Scout

__all__ = ["recorded"]
HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Changing(Connection):
    """A module of two operations, which says at `change` that it has a third one."""

    local = False
    unenforced = ()

    def __init__(self, notify, measured):
        self._notify = notify
        self._measured = measured
        self._ops = {"change": {}, "echo": {}}

    async def start(self, granted, confinement):
        """Nothing is to be started."""

    async def request(self, method, params, chunks=None):
        if method == "health":
            return Message(ok=True, result={"status": "ok"})
        if method == "describe":
            told = {"name": "m", "version": "1.0.0", "kind": "tool", "capabilities": []}
            return Message(ok=True, result=told | {"inputs": self._ops, "outputs": self._ops})
        if b'"op":"change"' in params:
            self._ops = self._ops | {"more": {}}
            self._notify("module:changed", {})
        return Message(ok=True, result={"done": True})

    def usage(self, *, exact):
        return Usage(cpu_ms=0.0, memory_bytes=0) if self._measured else None

    async def close(self):
        """Nothing is to be ended."""


MODULE = {"name": "m", "kind": "tool", "transport": {"type": "any"}, "capabilities": []}


@pytest.mark.parametrize("measured", [True, False])
async def test_a_module_that_changes_and_one_that_is_measured(log, again, measured):
    def open_transport(descriptor, notify, host):
        return Changing(notify, measured)

    limits = {"limits": {"memory_bytes": 10**9, "cpu_ms": 1000}}
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.mount("/mnt/tools", MODULE | limits)
        await session.invoke("/mnt/tools/m", "change", {}, traceparent=HEADER)
        described = await asyncio.gather(*(session.describe("/mnt/tools/m") for _ in range(3)))
        assert all("more" in each["inputs"] for each in described)
        await session.invoke("/mnt/tools/m", "more", {})
    assert await again(log) > 10


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["amplifier_replay", *map(str, words)])
    return __main__.main()


def test_the_program_compares_and_says_what_it_cannot_write(recorded_run, tmp_path, monkeypatch, capsys):
    before = recorded_run.read_bytes()
    assert command(monkeypatch, recorded_run, "-o", tmp_path / "new.jsonl") == 0
    assert (tmp_path / "new.jsonl").read_bytes() == before
    assert command(monkeypatch, recorded_run, "--trusted", "--real", CALLER) == 0
    capsys.readouterr()
    assert command(monkeypatch, recorded_run, "-o", recorded_run) == 2
    assert "expected another file than the log" in capsys.readouterr().err
    assert command(monkeypatch, recorded_run, "-o", tmp_path / "none" / "new.jsonl") == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    assert command(monkeypatch, tmp_path / "none.jsonl", "-o", tmp_path / "new.jsonl") == 2
    assert recorded_run.read_bytes() == before


@pytest.fixture
def recorded_run(log):
    async def record():
        async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
            session = await kernel.session.create({"goal": "test", "inputs": {}})
            await session.mount("/mnt/tools", program("echo.py", "echo"), trusted=True)
            await session.register_hook("policy:request", allow)
            await session.mount("/mnt/orchestrators", caller(), trusted=True)

    asyncio.run(record())
    return log


async def allow(event):
    return {"decision": "allow"}


def edited(log, change):
    """Write a log of which lines were changed or left out, with numbers that fit."""
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    kept = [event for event in lines if change(event) is not False]
    for n, event in enumerate(kept, 1):
        event["seq"] = n
    log.write_text("".join(json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n" for event in kept))
    return log


async def test_what_was_done_and_is_not_in_the_log_is_a_difference(recorded):
    def change(event):
        return (event["event"], event["data"].get("op") if "data" in event else None) != ("module:invoke", "turns")

    with pytest.raises(Difference, match="expected nothing more, got module:invoke"):
        await replay(edited(recorded, change), lambda _: None)


async def test_calls_that_were_refused_for_their_arguments_are_in_the_new_log_too(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        for fields in ({"timeout": -1}, {"timeout": "soon"}):
            with pytest.raises(BadRequest, match="timeout"):
                await session.invoke("/mnt/tools/echo", "echo", {"a": 1}, **fields)
        with pytest.raises(BadRequest, match="nothing is mounted"):
            await session.invoke("/mnt/tools/nonesuch", "echo", {})

    assert await run(program)


async def test_a_call_of_which_the_log_does_not_say_what_was_asked_is_a_difference(recorded):
    def change(event):
        if event["event"] == "policy:request" and event["data"].get("op") == "call":
            del event["data"]["args"]

    with pytest.raises(Difference):
        await replay(edited(recorded, change), lambda _: None)


def test_events_that_are_equal_part_nowhere():
    assert part(b'{"a":[1,{"b":2}],"c":3}', b'{"a": [1, {"b": 2}], "c": 3}')[0].startswith("$ ")
    assert part(b"[1]", b"[ 1]") == ("$ [1]", "[1]")
    assert part(b'{"a":[1,2]}', b'{"a":[1]}') == ("$.a[1] 2", "nothing")


async def test_answers_that_nobody_waits_for(recorded):
    ids = RecordedIds(recorded, "0" * 8)
    real = Real({}, trusted=False)
    answers = Answers(Log(recorded), Produced(real, ids), real)
    for event in ("module:chunk", "module:exit", "module:changed", "mount:add"):
        assert not answers.give(Entry(id="", ts=0, event=event, component="kernel", module="/mnt/tools/m"))
    ids.close()


async def test_ids_that_the_log_does_not_have_are_new(recorded):
    ids = RecordedIds(recorded, "0" * 8)
    assert ids.group(None, None).span_id != ids.group(None, None).span_id
    assert not ids.end("nonesuch", KernelError(""))
    scout = Scout(recorded)
    scout.end_turn("nonesuch")
    assert scout.next_child("nonesuch") is None
    ids.close()
    scout.close()


async def test_a_log_is_looked_through_beyond_what_is_kept(recorded, monkeypatch):
    monkeypatch.setattr(log_module, "_AHEAD_LINES", 3)
    log = Log(recorded)
    found = log.find(lambda entry: entry.event == "kernel:end")
    assert found is not None
    assert log.find(lambda entry: entry.event == "nonesuch:event") is None
    assert sum(1 for _ in log) == len(recorded.read_bytes().splitlines())
    log.close()
