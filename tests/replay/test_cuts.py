"""A run of everything at once, cut after any of its events: it is resumed, and ends as it would have."""

import asyncio
import json
import os
import random

from tests.replay.scripted import OPS, open_transport, scripted

from amplifier_core import Kernel, KernelError
from amplifier_replay import resume

CUTS = int(os.environ.get("AMPLIFIER_TEST_CUTS", "20"))
"""After how many of its events a run is cut; there are some 340."""

A, B, AGENT = "/mnt/tools/a", "/mnt/tools/b", "/mnt/orchestrators/o"
CAPABILITIES = [
    "sys:invoke:*",
    "sys:context.get",
    "sys:context.set_fragment",
    "sys:mounts",
    "sys:emit",
    "sys:session.create",
]
IDEMPOTENT = {"ops": {op: {"idempotent": True} for op in OPS}}
PLAN = {"goal": "g", "inputs": {}}
EVENTS = [{"event": "a:b", "data": {"n": 1}}]


def call(name, /, **args):
    return {"name": name, "args": args}


def invoking(path, op, args, **more):
    return call("invoke", path=path, op=op, args=args, **more)


MIXED = [
    invoking(A, "echo", {"x": 1}),
    invoking(A, "echo", {"x": 3}),
    invoking(B, "wait", {"turns": 5}),
    invoking(A, "wait", {"turns": 9}),
    invoking(A, "chunks", {"to": 3}, stream=True),
    call("context.get"),
    call("mounts"),
    call("session.create", plan=PLAN),
]
NESTED = [
    invoking(AGENT, "call", {"syscalls": [invoking(B, "echo", {"y": 1}), call("emit", event="x:y", data={})]}),
    call("context.set_fragment", key="j", value=2),
]


async def allow(event):
    await asyncio.sleep(0)
    return {"decision": "allow"}


async def deny_threes(event):
    denies = event.data.get("args", {}).get("x") == 3
    return {"decision": "deny" if denies else "abstain"}


HOOKS = {hook.__qualname__: hook for hook in (allow, deny_threes)}


async def outcome(work):
    try:
        return await work
    except KernelError as error:
        return error.code


async def program(kernel):
    session = await kernel.session.create(PLAN)
    await session.register_hook("policy:request", allow)
    await session.register_hook("policy:request", deny_threes, priority=5)
    await session.mount("/mnt/tools", scripted("a", concurrency=2) | IDEMPOTENT)
    await session.mount("/mnt/tools", scripted("b") | IDEMPOTENT)
    await session.mount("/mnt/orchestrators", scripted("o", "orchestrator", CAPABILITIES) | IDEMPOTENT)
    await session.mount("/mnt/hooks", scripted("h", "hook"))
    await session.register_hook("policy:request", "/mnt/hooks/h", priority=9)
    with session.span("step"):
        await session.invoke(A, "echo", {"x": 1})
        session.emit("my:event", {"n": 1})
    await session.invoke(A, "tell", {"events": EVENTS})
    for raised in (True, False):
        failing = {"code": "mine", "message": "no", "raised": raised, "events": EVENTS}
        await outcome(session.invoke(A, "fail", failing))
    await session.invoke(AGENT, "call", {"syscalls": MIXED})
    await session.invoke(AGENT, "turns", {"count": 3, "syscalls": NESTED})
    await asyncio.gather(*(session.invoke(A, "wait", {"turns": n}) for n in range(6)))
    await end_early(session)


async def end_early(session):
    forked = await session.fork()
    await session.unmount("/mnt/tools", "b")
    await forked.invoke(B, "echo", {})
    slow = asyncio.create_task(session.invoke(AGENT, "call", {"syscalls": [invoking(A, "wait", {"turns": 50})]}))
    for _ in range(20):
        await asyncio.sleep(0)
    slow.cancel()
    await asyncio.wait([slow])
    await outcome(session.invoke(AGENT, "call", {"syscalls": [invoking(A, "wait", {"turns": 9999})]}, timeout=0.03))
    await forked.end("over")


def read(log):
    return [json.loads(line) for line in log.read_bytes().splitlines()]


async def test_a_run_that_is_cut_anywhere_ends_as_it_would_have(log, tmp_path, again):
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport) as kernel:
        await program(kernel)
    lines = log.read_bytes().splitlines(keepends=True)
    known = {each["span_id"]: each for each in read(log) if each["event"] == "module:invoke"}
    cut = tmp_path / "cut.jsonl"
    for count in random.Random(20).sample(range(1, len(lines)), min(CUTS, len(lines) - 1)):
        cut.write_bytes(b"".join(lines[:count]) + b'{"id":"evt')
        async with resume(cut, hooks=HOOKS, open_transport=open_transport, isolation=False) as run:
            for each in run.calls:
                check(await outcome(each.task), known[each.span_id], f"cut after {count}")
        events = read(cut)
        assert events[count]["event"] == "kernel:resume"
        ended = [each["span_id"] for each in events if each["event"] == "module:invoke"]
        assert len(ended) == len({*ended}), f"cut after {count}: a call has ended twice"
        await again(cut)


def check(got, known, told):
    """Hold an outcome against that of the whole run, unless its caller had given up, or had no time left."""
    if known["status"] == "ok":
        assert shape(got) == shape(known["data"]["result"]), told
    elif known["error"]["code"] not in ("cancelled", "timeout"):
        assert got == known["error"]["code"], told


def shape(result):
    """Give a result without the id of a session, which is another one if it was not made before the cut."""
    return [each for each in result if "ses_" not in str(each)] if isinstance(result, list) else result
