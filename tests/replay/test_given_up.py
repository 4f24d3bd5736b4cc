"""Calls that were given up shortly before their kernel was killed: the log has what was below them ended, not them."""

import asyncio
import contextlib
import itertools
import json
from typing import Any

import pytest
from tests.replay.scripted import OPS, Scripted, scripted

from amplifier_core import Kernel, KernelError
from amplifier_replay import fork, resume

A, AGENT = "/mnt/tools/a", "/mnt/orchestrators/o"
IDEMPOTENT = {"ops": {op: {"idempotent": True} for op in OPS}}
PLAN = {"goal": "g", "inputs": {}}
STARTS = ("policy:request", "module:wait", "module:pre_invoke")


def echo(**args):
    return {"name": "invoke", "args": {"path": A, "op": "echo", "args": args}}


def agent(*syscalls):
    return AGENT, "call", {"syscalls": list(syscalls)}


def nested(*syscalls):
    path, op, args = agent(*syscalls)
    return {"name": "invoke", "args": {"path": path, "op": op, "args": args}}


SLOW = {"name": "invoke", "args": {"path": A, "op": "wait", "args": {"turns": 300}}}
SETS = {"name": "context.set_fragment", "args": {"key": "stuck", "value": 1}}
MOUNT = scripted("stuck")
CAPABILITIES = ["sys:invoke:*", "sys:context.get", "sys:context.set_fragment"]
MOUNTS = {
    "/mnt/tools": scripted("a", concurrency=1) | IDEMPOTENT,
    "/mnt/orchestrators": scripted("o", "orchestrator", CAPABILITIES) | IDEMPOTENT,
    "/mnt/hooks": scripted("h", "hook"),
}
IN_TURN = "module that is asked one question after the other"
TURN = "calls that wait for their turn"
WORK = {
    "a call": (A, "echo", {"stuck": 1}),
    "a nested call": agent(echo(stuck=1)),
    "nested calls": agent(echo(stuck=1), echo(n=2), echo(stuck=3)),
    "calls of a nested call": agent(nested(echo(stuck=1), echo(stuck=2)), echo(n=2)),
    "a system call": agent(SETS),
    "a system call beside others": agent(SETS, echo(stuck=1), echo(n=2)),
    "a system call of a nested call": agent(nested(SETS, echo(stuck=1))),
    TURN: agent(SLOW, SLOW, SLOW, echo(stuck=1)),
    "a mount": None,
}


def is_slow(args):
    return "stuck" in (*args, args.get("key"), args.get("descriptor", {}).get("name"))


class Module(Scripted):
    """A module that may be a policy hook, which answers what is not slow."""

    asked: asyncio.Event | None = None

    async def _on_event(self, args, resume, chunks):
        if self.asked is not None and is_slow(args["event"]["data"]["args"]):
            self.asked.set()
            await asyncio.Event().wait()
        return await super()._on_event(args, resume, chunks)


async def allow(event):
    await asyncio.sleep(0)
    return {"decision": "allow"}


async def outcome(work):
    with contextlib.suppress(KernelError):
        return await work


async def give_up(session, asked, work, way):
    """Begin some work, and end it while policy is asked."""
    seconds = 0.1 if way == "deadline" else None
    begun = (
        session.mount("/mnt/tools", MOUNT, timeout=seconds) if work is None else session.invoke(*work, timeout=seconds)
    )
    task = asyncio.create_task(begun)
    await asyncio.wait([task, asyncio.create_task(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
    for _ in range(20):
        await asyncio.sleep(0)
    if way == "cancel":
        task.cancel()
    elif way == "end":
        await session.end()
    await asyncio.gather(task, return_exceptions=True)


async def record(log, work, way, hook):
    """Make a log of some work that is given up."""
    asked = asyncio.Event()

    def open_transport(descriptor, notify, host):
        module = Module(descriptor)
        module.asked = asked
        return module

    async def slow(event):
        if hook == "callable" and is_slow(event.data["args"]):
            asked.set()
            await asyncio.Event().wait()
        return {"decision": "allow"}

    slow.__qualname__ = "allow"
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create(PLAN)
        await session.register_hook("policy:request", slow)
        for place, described in MOUNTS.items():
            one = {"limits": {"concurrency": 1}} if (place, hook) == ("/mnt/hooks", IN_TURN) else {}
            await session.mount(place, described | one)
        await session.register_hook("policy:request", "/mnt/hooks/h")
        await give_up(session, asked, work, way)


def read(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def open_calls(events):
    """Give the spans of the embedder's calls that have begun and not ended."""
    above = [each for each in events if "parent_span_id" not in each and each.get("module") in (A, AGENT)]
    ended = {each["span_id"] for each in above if each["event"] in ENDS}
    return {each["span_id"] for each in above if each["event"] in STARTS} - ended


WAYS = ("deadline", "cancel", "end")
CASES = [(work, "callable", way) for work in WORK for way in WAYS]
CASES += [("a nested call", "module", way) for way in WAYS]
CASES += [("nested calls", IN_TURN, way) for way in WAYS]


@pytest.mark.parametrize(("work", "hook", "way"), CASES)
async def test_a_call_that_was_given_up_has_ended_wherever_its_log_is_cut(log, tmp_path, again, work, way, hook):
    await record(log, WORK[work], way, hook)
    await again(log)
    lines = log.read_bytes().splitlines(keepends=True)
    for count in range(first_given_up(read(log)), len(lines)):
        cut, new = tmp_path / f"{count}.jsonl", tmp_path / f"{count}-new.jsonl"
        cut.write_bytes(b"".join(lines[:count]))
        for going_on, to in ((resume(cut, **LIVE), cut), (fork(log, count, new, **LIVE), new)):
            async with going_on as run:
                assert {each.span_id for each in run.calls} == open_calls(read(log)[:count])
                for each in run.calls:
                    await outcome(each.task)
            events = read(to)
            ended = [each["span_id"] for each in events if each["event"] in ENDS]
            assert len(ended) == len({*ended}), f"cut after {count}: something has ended twice"
            check_doubt(events, count)
            await again(to)


GET = {"name": "context.get"}
DEEP = agent(echo(stuck=1), nested(GET, nested(echo(n=1), GET), echo(n=2)), nested(GET, echo(n=3), nested(GET)), GET)


@pytest.mark.parametrize("hook", ["callable", "module"])
async def test_a_call_is_given_up_in_any_turn_of_the_loop(log, again, hook):
    asked = itertools.count()

    async def uneven(event):
        for _ in range(next(asked) % 3):
            await asyncio.sleep(0)
        if is_slow(event.data["args"]):
            await asyncio.Event().wait()
        return {"decision": "allow"}

    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_module) as kernel:
        session = await kernel.session.create(PLAN)
        await session.register_hook("policy:request", uneven)
        for place, described in MOUNTS.items():
            await session.mount(place, described)
        if hook == "module":
            await session.register_hook("policy:request", "/mnt/hooks/h")
        for turns in range(60):
            task = asyncio.create_task(session.invoke(*DEEP))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    await again(log)


def open_module(descriptor, notify, host):
    return Module(descriptor)


def first_given_up(events):
    """Give the number of the first event that tells of what was given up."""
    codes = ("cancelled", "timeout")
    return next(each["seq"] for each in events if is_unanswered(each) or each.get("error", {}).get("code") in codes)


def is_unanswered(event):
    return event["event"] == "policy:decision" and UNANSWERED in str(event["data"]["reason"])


def check_doubt(events, count):
    """Hold the end of what policy was asked about, and that was not told any more, against what is known of it."""
    ends = {each["span_id"]: each for each in events if each["event"] in ENDS}
    asked = {each["span_id"]: each for each in events[:count] if is_unanswered(each)}
    for span_id, each in asked.items():
        if ends[span_id]["seq"] > count and each.get("parent_span_id") not in asked:
            assert ends[span_id]["error"]["code"] == "cancelled"
            assert ends[span_id]["error"]["message"].startswith("it was given up while policy was asked; the log ends")


LIVE: dict[str, Any] = {
    "hooks": {"allow": allow},
    "open_transport": open_module,
    "isolation": False,
}
UNANSWERED = "had not answered when the wait for it ended"
ENDS = ("module:invoke", "mount:add")
