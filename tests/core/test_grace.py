"""Transports whose code goes on after a cancellation: the kernel bounds the wait for it, and says so."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
from tests.core.test_doors import DERIVED

from amplifier_core import Internal, ModuleDescriptor, Timeout
from amplifier_core._modules import grace, module
from amplifier_core._modules.grace import SECONDS, bounded
from amplifier_core.hookspecs import TRANSPORTS, Host

HIDES = 2.5  # seconds, much more than the grace
STUBBORN = f"""
import asyncio


async def hide():
    end = asyncio.get_running_loop().time() + {HIDES}
    while (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            await PAUSE
        except asyncio.CancelledError:
            pass


class Hiding:
    def __await__(self):
        return hide().__await__()
"""
HIDE = STUBBORN.replace("PAUSE", "asyncio.sleep(left)")
WAYS = {
    "sleeps": (HIDE, "await hide()"),
    "spins": (STUBBORN.replace("PAUSE", "asyncio.sleep(0)"), "await hide()"),
    "waits for a task": (HIDE, "await asyncio.create_task(hide())"),
    "waits for tasks": (HIDE, "await asyncio.gather(hide(), hide())"),
    "waits for an awaitable": (HIDE, "await Hiding()"),
    "hides everything": (HIDE.replace("except asyncio.CancelledError", "except BaseException"), "await hide()"),
    "cleans up for long": (
        HIDE,
        "try:\n                await asyncio.sleep(60)\n            finally:\n                await hide()",
    ),
}
RETURNS = {"a task": "asyncio.create_task(hide())", "an awaitable": "Hiding()"}


def stubborn(way):
    head, line = WAYS[way]
    begins = "        described = {"
    return head + DERIVED.replace(begins, f"        if method == 'invoke':\n            {line}\n{begins}")


def returning(what):
    request = "    def request(self, method, params, chunks=None):\n        if method == 'invoke':\n            return "
    plain = DERIVED.replace("async def request(", "async def asked(")
    asked = f"{request}{RETURNS[what]}\n        return self.asked(method, params)\n\n    async def close"
    return HIDE + plain.replace("    async def close", asked)


async def mounted(site, session, source):
    site.install(TRANSPORTS, "stubborn", source)
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stubborn", "local": False}}
    await session.mount("/mnt/tools", descriptor)


async def leave():
    """Wait for the tasks that foreign code has left behind."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left := {task for task in left if "hide" in repr(task)}:
        await asyncio.wait(left)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one hides even that it is closed
@pytest.mark.parametrize("source", [*map(stubborn, WAYS), *map(returning, RETURNS)], ids=[*WAYS, *RETURNS])
async def test_a_call_that_hides_its_cancellation_ends_after_a_grace(site, session, source):
    await mounted(site, session, source)
    began = time.monotonic()
    with pytest.raises(Timeout, match="/mnt/tools/m: no answer within 0.05 s") as caught:
        await session.invoke("/mnt/tools/m", "any", {}, timeout=0.05)
    assert SECONDS <= time.monotonic() - began < HIDES
    assert caught.value.details["phase"] == "module"
    told = "its transport had not ended it 1 s after its cancellation, and was given up"
    assert caught.value.details["given_up"] == told
    assert told in caught.value.__notes__
    await leave()


async def test_a_caller_that_gives_up_is_free_after_the_grace_too(site, session, events):
    await mounted(site, session, stubborn("sleeps"))
    calling = asyncio.create_task(session.invoke("/mnt/tools/m", "any", {}))
    await asyncio.sleep(0)
    calling.cancel("of the caller")
    with pytest.raises(asyncio.CancelledError) as caught:
        await calling
    (told,) = caught.value.__notes__
    assert "given up" in told
    (event,) = events("module:invoke")
    assert event["error"] == {
        "code": "cancelled",
        "message": "the caller gave up",
        "details": {"given_up": told, "module": "/mnt/tools/m"},
    }


async def test_a_start_that_hides_its_cancellation_ends_with_the_mount(site, session):
    source = HIDE + DERIVED.replace("    async def start(self, granted, isolation):\n        pass", START)
    with pytest.raises(Timeout, match="mounting /mnt/tools/m: no answer within 0.05 s"):
        await mount_within(site, session, source, 0.05)


START_OF_NOTHING = "    async def start(self, granted, isolation):\n        pass"
CLOSE_OF_NOTHING = "    async def close(self):\n        pass"
START, CLOSE = (each.replace("pass", "await hide()") for each in (START_OF_NOTHING, CLOSE_OF_NOTHING))


async def mount_within(site, session, source, seconds):
    site.install(TRANSPORTS, "stubborn", source)
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stubborn", "local": False}}
    await session.mount("/mnt/tools", descriptor, timeout=seconds)


async def test_a_close_that_hides_its_cancellation_is_given_up(site, session, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    await mounted(site, session, HIDE + DERIVED.replace("    async def close(self):\n        pass", CLOSE))
    began = time.monotonic()
    await session.unmount("/mnt/tools/m")
    assert time.monotonic() - began < HIDES


async def test_a_call_may_clean_up_in_its_grace():
    cleaned = []

    async def call():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            await asyncio.create_task(asyncio.sleep(0))
            await asyncio.sleep(0)
            cleaned.append(1)

    task = asyncio.ensure_future(bounded(call(), "it"))
    await asyncio.sleep(0)
    task.cancel("why")
    await asyncio.wait((task,))
    assert task.cancelled()
    assert cleaned == [1]


async def test_a_call_sees_the_outcome_of_the_task_that_it_waits_for():
    """Cancelled while it waits for a task, it goes on when that has ended, as it does when a task awaits it."""
    ended = []

    async def inner():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            ended.append(error.args)
            await asyncio.sleep(0.01)
        return "kept"

    async def call():
        return [await asyncio.create_task(inner()), await asyncio.sleep(0, "more")]

    task = asyncio.ensure_future(bounded(call(), "it"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel("why")
    assert await task == ["kept", "more"]
    assert ended == [("why",)]


async def test_a_task_that_has_ended_just_now_does_not_keep_the_cancellation_from_the_call():
    async def call():
        await asyncio.create_task(asyncio.sleep(0))

    task = asyncio.ensure_future(bounded(call(), "it"))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_future_is_awaited_as_it_is():
    future = asyncio.get_running_loop().create_future()
    assert bounded(future, "it") is future
    future.cancel()


@pytest.mark.parametrize("error", [OSError("connection refused"), ValueError("no")])
async def test_what_a_future_fails_with_is_raised_where_the_call_waits(error):
    """The task throws it into the coroutine that it runs: it has to go on to the one inside, which may handle it."""
    failing = asyncio.get_running_loop().create_future()

    async def call():
        try:
            await failing
        except type(error) as caught:
            await asyncio.sleep(0)
            return caught
        raise AssertionError

    waiting = asyncio.ensure_future(bounded(call(), "it"))
    await asyncio.sleep(0)
    failing.set_exception(error)
    assert await waiting is error


async def test_a_call_that_is_closed_ends_where_it_stands():
    ended = []

    async def call():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    driven = bounded(call(), "it")
    driven.send(None)  # type: ignore[attr-defined]
    driven.close()  # type: ignore[attr-defined]
    assert ended == [True]


async def times_out():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)


async def fails_in_a_group():
    async def fail():
        raise ValueError

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(60)


async def waits_for_what_is_cancelled():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await future


@pytest.mark.parametrize("first", [times_out, fails_in_a_group, waits_for_what_is_cancelled])
async def test_a_call_that_cancels_itself_and_goes_on_has_all_its_time(first, monkeypatch):
    monkeypatch.setattr(grace, "SECONDS", 0.01)

    async def call():
        await first()
        await asyncio.create_task(asyncio.sleep(0.05))
        await asyncio.sleep(0.05)
        return "kept"

    assert await bounded(call(), "it") == "kept"


async def test_a_call_that_has_cancelled_itself_before_is_bounded_all_the_same():
    async def call():
        await times_out()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    task = asyncio.ensure_future(bounded(call(), "it"))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait((task,), timeout=HIDES)
    assert task.cancelled()


CANCELS = """
import asyncio


async def cancel_itself():
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task
"""


async def test_a_start_that_cancels_itself_is_no_cancellation_of_the_caller(site, session):
    source = CANCELS + DERIVED.replace(START_OF_NOTHING, START_OF_NOTHING.replace("pass", "await cancel_itself()"))
    with pytest.raises(Internal, match="cancelled a start that the kernel had not cancelled"):
        await mounted(site, session, source)


async def test_a_close_that_cancels_itself_is_an_end_like_any_other(site, kernel, session, events):
    source = CANCELS + DERIVED.replace(CLOSE_OF_NOTHING, CLOSE_OF_NOTHING.replace("pass", "await cancel_itself()"))
    await mounted(site, session, source)
    await session.unmount("/mnt/tools/m")
    await mounted(site, session, source)
    await session.end()
    await mounted(site, await kernel.session.create({"goal": "another"}), source)
    await kernel.close()
    assert len(events("session:end")) == 2


async def test_a_close_that_is_cancelled_ends_at_once():
    """Only the end of the loop does that."""

    class Slow:
        async def close(self):
            await asyncio.sleep(60)

    descriptor = ModuleDescriptor.from_mapping(
        {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "any"}}
    )
    host = Host()
    host.shared(Slow)
    slow: Any = Slow()
    for closes in (module.Module("/mnt/tools/m", descriptor, slow, None, trusted=False), host):
        closing = asyncio.create_task(closes.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait((closing,))
        assert closing.cancelled()


async def test_what_a_transport_shares_may_cancel_itself_at_the_end():
    class Cancelling:
        async def close(self):
            await waits_for_what_is_cancelled()
            raise asyncio.CancelledError

    host = Host()
    host.shared(Cancelling)
    await host.close()


async def test_a_start_that_is_cancelled_is_cancelled(site, session):
    source = DERIVED.replace(START_OF_NOTHING, START_OF_NOTHING.replace("pass", "await asyncio.sleep(60)"))
    mounting = asyncio.create_task(mounted(site, session, "import asyncio\n" + source))
    await asyncio.sleep(0.01)
    mounting.cancel()
    await asyncio.wait((mounting,))
    assert mounting.cancelled()
