"""Programs at random, recorded and replayed: what embedders, modules and hooks do in any order and at the same time."""

import asyncio
import contextlib
import logging
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.replay import test_cuts
from tests.replay.scripted import open_transport, scripted
from tests.replay.test_cuts import AGENT, A, B

from amplifier_core import Kernel, KernelError
from amplifier_replay import replay

PROGRAMS = int(os.environ.get("AMPLIFIER_TEST_PROGRAMS", "0"))
"""How many programs are made up. Without a number, some are that are the same each time."""

HOOK = "/mnt/hooks/h"
CAPABILITIES = [*test_cuts.CAPABILITIES, "sys:describe", "sys:session.fork", "sys:register_hook"]
PLAN = {"goal": "g", "inputs": {}}


def call(name, /, **args):
    return {"name": name, "args": args}


def invoking(target):
    path, op, args = target
    return call("invoke", path=path, op=op, args=args, stream=op == "chunks")


TOLD = st.lists(st.sampled_from([{"event": "a:b", "data": {"n": 1}}, {"event": "kernel:end"}, {}]), max_size=3)
CODES = st.sampled_from(["mine", "timeout", "cancelled", "internal", "oom", "bad_request"])
MESSAGES = st.sampled_from(["no", "the caller gave up", "\u2028"])
FAILURES = st.fixed_dictionaries({"code": CODES, "message": MESSAGES, "raised": st.booleans(), "events": TOLD})
TOOLS = st.sampled_from([A, B])
LEAVES = st.one_of(
    st.tuples(TOOLS, st.just("echo"), st.just({"x": [1.5, None, "\u2029"]})),
    st.tuples(TOOLS, st.just("wait"), st.builds(dict, turns=st.integers(0, 30))),
    st.tuples(st.sampled_from([A, B, AGENT]), st.just("fail"), FAILURES),
    st.tuples(TOOLS, st.just("tell"), st.builds(dict, events=TOLD)),
    st.tuples(TOOLS, st.just("chunks"), st.builds(dict, to=st.integers(0, 5))),
    st.just(("/mnt/tools/none", "echo", {})),
)
OTHERS = st.sampled_from(
    [
        call("context.get"),
        call("context.set_fragment", key="k", value=[1]),
        call("mounts"),
        call("emit", event="x:y", data={}),
        call("describe", path=A),
        call("session.create", plan=PLAN),
        call("register_hook", event="x:*", endpoint_ref=B, priority=0),
        call("nonesuch"),
    ]
)


def agents(below):
    syscalls = st.lists(st.one_of(OTHERS, below.map(invoking)), min_size=1, max_size=4)
    return st.one_of(
        st.builds(lambda calls: (AGENT, "call", {"syscalls": calls}), syscalls),
        st.builds(lambda calls, n: (AGENT, "turns", {"syscalls": calls, "count": n}), syscalls, st.integers(0, 3)),
    )


TARGETS = st.recursive(LEAVES, agents, max_leaves=8)
HOOKS = st.sampled_from(["allow", "abstain", "slow", "some", "calls", "raises", "module"])
AT_ONCE = st.recursive(
    st.one_of(
        st.tuples(st.just("invoke"), TARGETS, st.sampled_from([None, None, None, 0.002])),
        st.tuples(st.just("stream"), TARGETS, st.integers(0, 3)),
        st.tuples(st.just("cancel"), TARGETS, st.integers(0, 12)),
        st.tuples(st.just("emit"), st.sampled_from(["my:event", "no name", "kernel:end"])),
        st.tuples(st.just("set"), st.sampled_from([1, {"a": "\u2028"}, {1, 2}])),
        st.sampled_from([("get",), ("fork",), ("create",)]),
        st.tuples(st.just("hook"), HOOKS),
    ),
    lambda below: st.one_of(
        st.tuples(st.just("gather"), st.lists(below, min_size=2, max_size=4)),
        st.tuples(st.just("span"), st.lists(below, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)
ACTS = st.one_of(AT_ONCE, AT_ONCE, st.sampled_from([("end",), ("unmount",), ("mount",)]))
"""What nothing else is done beside: there the log does not tell on which side of a call it was."""


class Program:
    """One program, in its kernel."""

    def __init__(self, kernel, session):
        self.kernel = kernel
        self.sessions = [session]
        self.hooks = 0

    async def do(self, act):
        with contextlib.suppress(KernelError, asyncio.CancelledError):
            await getattr(self, f"_{act[0]}")(self.sessions[-1], *act[1:])

    async def _invoke(self, session, target, timeout):
        await session.invoke(*target, timeout=timeout)

    async def _stream(self, session, target, count):
        async with session.stream(*target) as stream:
            async for _ in stream:
                count -= 1
                if count < 0:
                    return
        await stream.result()

    async def _cancel(self, session, target, turns):
        task = asyncio.create_task(session.invoke(*target))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def _emit(self, session, name):
        session.emit(name, {"n": 1})

    async def _set(self, session, value):
        await session.context.set_fragment("k", value)

    async def _get(self, session):
        await session.context.get()

    async def _fork(self, session):
        self.sessions.append(await session.fork())

    async def _create(self, session):
        self.sessions.insert(0, await self.kernel.session.create(PLAN))

    async def _end(self, session):
        if len(self.sessions) > 1:
            self.sessions.remove(session)
            await session.end("over")

    async def _unmount(self, session):
        await session.unmount("/mnt/tools", "b")

    async def _mount(self, session):
        await session.mount("/mnt/tools", scripted("b"))

    async def _gather(self, session, below):
        await asyncio.gather(*map(self.do, below))

    async def _span(self, session, below):
        with session.span("step", data={"n": 1}):
            for each in below:
                await self.do(each)

    async def _hook(self, session, kind):
        if kind == "module":
            await session.register_hook("policy:request", HOOK, priority=len(kind))
            return
        asked = 0
        self.hooks += 1

        async def hook(event):
            nonlocal asked
            asked += 1
            if kind == "slow":
                await asyncio.sleep(0.001 * (asked % 3))
            if kind == "calls" and asked < 4:
                session.emit("hook:asked", {"n": asked})
                await session.context.get()
                await session.invoke(A, "echo", {"n": asked})
            if kind == "raises" and asked == 2:
                raise ValueError("no")
            denies = kind == "some" and asked % 3 == 0
            return {"decision": "deny" if denies else "abstain" if kind == "abstain" else "allow"}

        hook.__qualname__ = f"{kind}{self.hooks}"
        await session.register_hook("policy:request", hook, priority=len(kind))


async def allow(event):
    return {"decision": "allow"}


async def record(path, acts):
    async with Kernel(event_log=path, isolation=False, recording=True, open_transport=open_transport) as kernel:
        session = await kernel.session.create(PLAN)
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", scripted("a"))
        await session.mount("/mnt/tools", scripted("b"))
        await session.mount("/mnt/hooks", scripted("h", "hook"))
        await session.mount("/mnt/orchestrators", scripted("o", "orchestrator", CAPABILITIES))
        program = Program(kernel, session)
        for each in acts:
            await program.do(each)


@pytest.fixture(autouse=True)
def nothing_is_warned_of():
    """Leave out the warnings: hooks fail, and modules tell of events that are the kernel's own."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@given(st.lists(ACTS, max_size=6))
@settings(
    max_examples=PROGRAMS or 20,
    derandomize=not PROGRAMS,
    database=None,
    phases=[Phase.generate],  # the log of a failure stays; to record another program is no way to make it smaller
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_program_is_replayed_to_the_byte(log, acts):
    log.unlink(missing_ok=True)
    asyncio.run(record(log, acts))
    lines = []
    asyncio.run(replay(log, lines.append))
    assert b"".join(lines) == log.read_bytes()
