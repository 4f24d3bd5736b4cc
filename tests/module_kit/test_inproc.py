"""A module of the kit in the process that mounts it."""

import asyncio
import threading

import pytest
from tests.module_kit.everything import module as everything_module

from amplifier_core import BadRequest, Internal, KernelError, Timeout
from amplifier_core.testing import check_module
from amplifier_module import Context, Module
from amplifier_transport_inproc import descriptor_of

EVERYTHING = "/mnt/orchestrators/everything"


@pytest.fixture
async def everything(session, approve):
    await session.register_hook("policy:request", approve, priority=1)
    await session.mount("/mnt/orchestrators", descriptor_of(everything_module), trusted=True)

    async def invoke(op, args=None, **options):
        return await session.invoke(EVERYTHING, op, args or {}, **options)

    return invoke


@pytest.fixture
async def counter(session):
    module = Module("counter")

    @module.op
    def count(text: str) -> dict[str, int]:
        return {"words": len(text.split())}

    await session.mount("/mnt/tools", descriptor_of(module), trusted=True)
    return "/mnt/tools/counter"


async def test_it_conforms():
    examples: dict = {
        "count": {"text": "a b"},
        "stream": {"to": 3},
        "stream.async": {"to": 3},
        "nap": {"seconds": 0.01},
        "steps": {"paths": ["/mnt/tools/x"]},
    }
    checks = await check_module(descriptor_of(everything_module), examples)
    assert [check for check in checks if check.problem] == []


async def test_a_call_and_an_error(everything, capsys):
    assert await everything("count", {"text": "a b"}) == {"words": 2}
    with pytest.raises(BadRequest, match="args.text: expected str, got int"):
        await everything("count", {"text": 1})
    with pytest.raises(KernelError, match="buy some soon"):
        await everything("fail", {"how": "own"})
    with pytest.raises(Internal, match="ValueError: I do not know other"):
        await everything("fail", {"how": "other"})
    assert "ValueError" in capsys.readouterr().err


@pytest.mark.parametrize("op", ["stream", "stream.async"])
async def test_chunks_reach_a_reader_however_slow(session, everything, op):
    stream = session.stream(EVERYTHING, op, {"to": 40, "size": 1 << 18})
    assert [chunk["n"] async for chunk in stream] == list(range(1, 41))
    assert await stream.result() == 40
    assert stream.dropped == 0


@pytest.mark.parametrize("op", ["wait", "nap"])
async def test_a_deadline_ends_the_call_and_not_the_module(everything, op):
    with pytest.raises(Timeout):
        await everything(op, {"seconds": 30}, timeout=0.2)
    assert await everything("count", {"text": ""}) == {"words": 0}


@pytest.mark.parametrize("op", ["steps", "steps.stateless"])
async def test_calls_that_are_awaited_together_are_made_together(session, everything, counter, events, op):
    async with session.stream(EVERYTHING, op, {"paths": [counter, "/mnt/tools/none"]}) as stream:
        assert [chunk async for chunk in stream] == ["start", "together"]
    assert await stream.result() == [2, "bad_request", 3, "bad_request"]
    assert [event["data"]["at"] for event in events("kit:step")] == ["start", "together"]


async def test_what_waits_for_a_call_is_given_up_at_the_end(session, approve):
    """The module has been told nothing of its caller's cancellation between two turns."""
    await session.register_hook("policy:request", approve, priority=1)
    module, ended = Module("waiting", capabilities=["sys:invoke"]), asyncio.Event()

    @module.op
    async def relay(context: Context) -> None:
        try:
            await context.invoke("/mnt/tools/waiting", "hang")
        finally:
            ended.set()

    @module.op
    async def hang() -> None:
        await asyncio.Event().wait()

    await session.mount("/mnt/tools", descriptor_of(module), trusted=True)
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/waiting", "relay", {}, timeout=0.2)
    assert not ended.is_set()
    await session.unmount("/mnt/tools/waiting")
    await asyncio.wait_for(ended.wait(), 10)


async def test_its_threads_end_with_the_mount(session, counter):
    before = set(threading.enumerate())
    assert await session.invoke(counter, "count", {"text": "a"}) == {"words": 1}
    begun = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("op ")}
    assert begun
    await session.unmount(counter)
    for thread in begun:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_a_module_over_stdio_is_called_by_one_in_the_process(session, everything, module):
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    args = {"path": "/mnt/tools/streamer", "op": "count", "args": {"to": 2}, "stream": True}
    async with session.stream(EVERYTHING, "relay", args) as stream:
        assert [chunk["n"] async for chunk in stream] == [1, 2]
    assert await stream.result() == {"count": 2}
