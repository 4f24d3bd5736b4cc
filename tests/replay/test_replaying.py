"""A program of the embedder's own whose modules answer from a log."""

import asyncio
import uuid

import pytest
from tests.replay import test_cuts as cuts
from tests.replay.scripted import open_transport, scripted

from amplifier_core import BadRequest, Kernel, KernelError
from amplifier_replay import Difference, UnusableLog, replaying

A, AGENT = cuts.A, cuts.AGENT


async def small(kernel, args=None, **more):
    """Make a session and two calls, in any order, and give what came of them."""
    session = await kernel.session.create({"goal": "test", "inputs": {"run": str(uuid.uuid4())}})
    await session.register_hook("policy:request", cuts.allow)
    await session.mount("/mnt/tools", scripted("a"))
    await session.mount("/mnt/orchestrators", scripted("o", "orchestrator", cuts.CAPABILITIES))
    await session.context.set_fragment("k", more.get("fragment", 1))
    session.emit("my:event", {"n": 1})
    calls = {"syscalls": [cuts.invoking(A, "echo", {"id": 1}), cuts.invoking(A, "fail", FAILING)]}
    work = [session.invoke(A, "echo", args or {"x": 1}), session.invoke(AGENT, "call", calls)]
    return await asyncio.gather(*work[:: more.get("order", 1)])


FAILING = {"code": "mine", "message": "no", "raised": False, "events": cuts.EVENTS}


async def recorded(log, program, **more):
    async with Kernel(event_log=log, isolation=False, recording=True, open_transport=open_transport, **more) as kernel:
        return await program(kernel)


async def test_a_program_gets_the_answers_of_the_run_without_its_modules(log):
    answers = await recorded(log, small)
    async with replaying(log) as kernel:
        assert await small(kernel) == answers
    async with replaying(str(log)) as kernel:
        assert await small(kernel, order=-1) == answers[::-1]


async def test_a_program_with_everything_in_it(log):
    await recorded(log, cuts.program)
    async with replaying(log) as kernel:
        await cuts.program(kernel)


async def test_another_call_is_a_difference_and_nothing_is_answered_then(log):
    await recorded(log, small)
    with pytest.raises(Difference, match=r"expected \$\.data\.args\.x 1, got 2") as caught:
        async with replaying(log) as kernel:
            await small(kernel, {"x": 2})
    assert f'"seq":{caught.value.seq},'.encode() in log.read_bytes()
    with pytest.raises(Difference, match=r"args\.x"):
        async with replaying(log) as kernel:
            with pytest.raises(KernelError):
                await small(kernel, {"x": 2})


async def test_what_is_left_out_or_too_much_is_a_difference(log):
    await recorded(log, small)
    with pytest.raises(Difference, match=r"expected module:pre_invoke of /mnt/tools/a .*, got nothing"):
        async with replaying(log):
            pass
    with pytest.raises(Difference, match=r"context:set: expected .*'value': 1.*, got .*'value': 2"):
        async with replaying(log) as kernel:
            await small(kernel, fragment=2)
    with pytest.raises(Difference, match="expected nothing more, got session:start"):
        async with replaying(log) as kernel:
            await small(kernel)
            session = await kernel.session.create({"goal": "test", "inputs": {"run": str(uuid.uuid4())}})
            session.emit("my:event", {"n": 2})
    with pytest.raises(Difference, match="expected no other mount, got one of /mnt/tools/a"):
        async with replaying(log) as kernel:
            await small(kernel)
            await small(kernel)


async def test_a_call_that_was_made_once_is_answered_once(log):
    async def program(kernel, count):
        session = await kernel.session.create(cuts.PLAN)
        await session.mount("/mnt/tools", scripted("a"))
        for _ in range(count):
            await session.invoke(A, "echo", {})

    await recorded(log, lambda kernel: program(kernel, 1))
    with pytest.raises(Difference, match=r"expected no other call of /mnt/tools/a echo, got \{\}"):
        async with replaying(log) as kernel:
            await program(kernel, 2)


async def test_an_error_of_the_program_is_raised_as_it_is(log):
    await recorded(log, small)
    with pytest.raises(ZeroDivisionError):
        async with replaying(log) as kernel:
            await small(kernel)
            raise ZeroDivisionError


async def test_a_log_that_is_no_whole_recording_is_refused(log):
    async with Kernel(event_log=log):
        pass
    with pytest.raises(UnusableLog, match=r"this log was made without Kernel\(recording=True\)"):
        async with replaying(log):
            pytest.fail("expected an error")


async def test_a_module_that_could_not_be_mounted_cannot_be_mounted_again(log, module):
    async def program(kernel):
        session = await kernel.session.create(cuts.PLAN)
        for descriptor, trusted in ((module("echo.py"), False), (module("nonesuch.py"), True)):
            with pytest.raises(KernelError) as caught:
                await session.mount("/mnt/tools", descriptor, trusted=trusted)
            said.append(caught.value.message)

    said = []
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        await program(kernel)
    async with replaying(log) as kernel:
        await program(kernel)
    assert said[:2] == said[2:]


async def test_a_mount_whose_transport_could_not_be_opened_fails_again(log):
    async def mounting(kernel):
        session = await kernel.session.create(cuts.PLAN)
        with pytest.raises(BadRequest, match="nonesuch"):
            await session.mount("/mnt/tools", scripted("m") | {"transport": {"type": "nonesuch"}})

    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        await mounting(kernel)
    async with replaying(log) as kernel:
        await mounting(kernel)


async def test_an_error_after_a_difference_is_explained_by_it(log):
    await recorded(log, small)
    with pytest.raises(Difference, match=r"args\.x") as caught:
        async with replaying(log) as kernel:
            with pytest.raises(Difference):
                await small(kernel, {"x": 2})
            raise ZeroDivisionError
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_chunks_come_again_and_an_observer_in_a_module_answers(log):
    async def program(kernel):
        session = await kernel.session.create(cuts.PLAN)
        await session.mount("/mnt/tools", scripted("a"))
        await session.register_hook("app:*", "/mnt/tools/a")
        session.emit("app:one", {})
        async with session.stream(A, "chunks", {"to": 3}) as stream:
            return [chunk async for chunk in stream]

    chunks = await recorded(log, program)
    async with replaying(log) as kernel:
        assert await program(kernel) == chunks == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_call_that_was_given_up_may_come_further(log):
    deep = {"syscalls": [cuts.invoking(A, "wait", {"turns": 3}), cuts.invoking(A, "echo", {"never": 1})]}

    async def program(kernel, turns):
        session = await kernel.session.create(cuts.PLAN)
        await session.register_hook("policy:request", cuts.allow)
        await session.mount("/mnt/tools", scripted("a"))
        await session.mount("/mnt/orchestrators", scripted("o", "orchestrator", cuts.CAPABILITIES))
        task = asyncio.create_task(session.invoke(AGENT, "call", deep))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    await recorded(log, lambda kernel: program(kernel, 8))
    async with replaying(log) as kernel:
        await program(kernel, 40)


async def test_a_call_that_was_not_made_because_its_caller_was_given_up_is_made_and_never_answered(log):
    async def program(kernel, hook):
        session = await kernel.session.create(cuts.PLAN)
        await session.register_hook("policy:request", hook)
        await session.mount("/mnt/tools", scripted("a"))
        await session.mount("/mnt/orchestrators", scripted("o", "orchestrator", cuts.CAPABILITIES))
        await session.register_hook("module:pre_invoke", tell)
        task = asyncio.create_task(session.invoke(AGENT, "call", {"syscalls": [cuts.invoking(A, "echo", {"x": 1})]}))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def allows(event):
        if event.data["path"] == A and event.data["action"] == "invoke" and is_slow:
            reached.set()
            await asyncio.Event().wait()
        return {"decision": "allow"}

    async def tell(event):
        if event.module == A:
            reached.set()

    reached, is_slow = asyncio.Event(), True
    await recorded(log, lambda kernel: program(kernel, allows), event_starts=True)
    assert not [each for each in cuts.read(log) if each["event"] == "module:pre_invoke" and each["module"] == A]
    reached, is_slow = asyncio.Event(), False
    async with replaying(log) as kernel:
        await program(kernel, allows)
    assert reached.is_set()
