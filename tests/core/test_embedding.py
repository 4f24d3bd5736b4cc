"""Programs around a kernel: other threads, other loops, hooks that do not let go, notebooks and `async with`."""

import asyncio
import contextvars
import gc
import sys
import threading
import time
import tomllib
from collections import deque
from pathlib import Path
from typing import get_args

import anyio
import pytest
from tests.scopes import still_cancelled

import amplifier_core
from amplifier_core import BadRequest, Cancelled, Forbidden, Kernel, KernelError, Plan, Timeout
from amplifier_core._events.inbox import Inbox

ECHO = "/mnt/tools/echo"


async def allow(event):
    return {"decision": "allow", "scope": "call"}


@pytest.fixture
async def mounted(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    return session


# Hooks that do not let go.

STUBBORN = 3  # seconds


def hides_its_cancellation():
    async def hook(event):
        until = time.monotonic() + STUBBORN
        while time.monotonic() < until:
            try:
                await asyncio.sleep(until - time.monotonic())
            except asyncio.CancelledError:
                continue
        return {"decision": "allow"}

    return hook


def cleans_up_slowly():
    async def hook(event):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(STUBBORN)

    return hook


def fails_when_it_is_cancelled():
    async def hook(event):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("not now") from None

    return hook


def uncancels_its_task():
    async def hook(event):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task
            task.uncancel()
            await asyncio.sleep(STUBBORN)
        return {"decision": "allow"}

    return hook


def blocks_the_loop():
    async def hook(event):
        time.sleep(0.5)
        return {"decision": "allow"}

    return hook


def blocks_the_loop_after_a_wait():
    async def hook(event):
        await asyncio.sleep(0)
        time.sleep(0.5)
        return {"decision": "allow"}

    return hook


HOOKS: tuple = (
    hides_its_cancellation,
    cleans_up_slowly,
    fails_when_it_is_cancelled,
    uncancels_its_task,
    blocks_the_loop,
    blocks_the_loop_after_a_wait,
)


@pytest.mark.parametrize("hook", HOOKS)
async def test_no_hook_allows_after_its_time(log, module, events, hook):
    async with Kernel(event_log=log, policy_timeout=0.2) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.register_hook("policy:request", hook())
        began = time.monotonic()
        with pytest.raises(Forbidden, match="no answer within 0.2 s"):
            await session.invoke(ECHO, "echo", {})
        assert time.monotonic() - began < STUBBORN
        assert not still_cancelled()
    (decision,) = events("policy:decision")[1:]
    assert decision["data"]["decision"] == "deny"


@pytest.mark.parametrize("hook", HOOKS)
async def test_no_hook_lifts_the_deadline_of_a_call(log, module, events, hook):
    async with Kernel(event_log=log, policy_timeout=60) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.register_hook("policy:request", hook())
        began = time.monotonic()
        with pytest.raises(Timeout):
            await session.invoke(ECHO, "echo", {}, timeout=0.2)
        with pytest.raises(Timeout):
            await session.mount("/mnt/agents", module("echo.py", name="two"), trusted=True, timeout=0.2)
        assert time.monotonic() - began < STUBBORN
    starts = events("module:start")
    assert len(starts) == 1, "what a late hook allowed has been started"


async def test_a_hook_that_hides_its_cancellation_does_not_hold_a_session_up(kernel, mounted, events):
    await mounted.register_hook("policy:request", hides_its_cancellation())
    call = asyncio.create_task(mounted.invoke(ECHO, "echo", {}))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await mounted.end()
    assert time.monotonic() - began < STUBBORN - 1
    with pytest.raises(Cancelled):
        await call


async def test_nothing_of_a_hook_runs_after_the_kernel(log, module):
    left = []

    async def slow(event):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            left.append("cleaned up")

    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", slow)
        with pytest.raises(Timeout):
            await session.mount("/mnt/tools", module("echo.py"), trusted=True, timeout=0.1)
        assert left == []
    assert left == ["cleaned up"]


async def test_a_hook_that_calls_the_session_is_asked_a_few_times_inside_itself(mounted):
    async def curious(event):
        await mounted.invoke(ECHO, "echo", {})
        return {"decision": "allow"}

    await mounted.register_hook("policy:request", curious)
    with pytest.raises(Forbidden, match="16 deep"):
        await mounted.invoke(ECHO, "echo", {})


def ends_a_scope_of_its_own():
    async def hook(event):
        with anyio.move_on_after(0.05) as scope:
            await anyio.sleep(60)
        return {"decision": "allow" if scope.cancelled_caught else "deny"}

    return hook


def has_a_timeout_of_its_own():
    async def hook(event):
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(60)
        except TimeoutError:
            return {"decision": "allow"}

    return hook


def asks_in_a_group_of_tasks():
    async def hook(event):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.01)
            await anyio.to_thread.run_sync(time.sleep, 0.01)
        return {"decision": "allow"}

    return hook


@pytest.mark.parametrize("hook", [ends_a_scope_of_its_own, has_a_timeout_of_its_own, asks_in_a_group_of_tasks])
async def test_a_hook_may_have_scopes_of_its_own(mounted, hook):
    await mounted.register_hook("policy:request", hook())
    with anyio.fail_after(30):
        assert await mounted.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}
    assert not still_cancelled()


async def test_a_hook_sees_the_context_of_its_caller(mounted):
    request = contextvars.ContextVar("request", default="")
    seen = []

    async def hook(event):
        seen.append(request.get())
        await asyncio.sleep(0)
        seen.append(request.get())
        return {"decision": "allow"}

    await mounted.register_hook("policy:request", hook)
    request.set("mine")
    await mounted.invoke(ECHO, "echo", {})
    assert seen == ["mine", "mine"]


async def test_a_second_close_waits_for_the_first(log, module, events):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        first = asyncio.create_task(kernel.close())
        await asyncio.sleep(0)
    assert first.done()
    assert events("module:exit")
    await first
    await kernel.close()


@pytest.mark.parametrize("what", ["session", "kernel"])
async def test_a_hook_may_end_what_it_is_asked_for(log, module, events, what):
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)

        async def hook(event):
            await (kernel.close() if what == "kernel" else session.end())
            return {"decision": "allow"}

        await session.register_hook("policy:request", hook)
        began = time.monotonic()
        with pytest.raises(KernelError, match="has ended"):
            await session.invoke(ECHO, "echo", {})
        assert time.monotonic() - began < 5
    assert len(events("session:end")) == 1
    assert [each["status"] for each in events("module:invoke")] == ["error"]


# Other threads and other loops.


async def test_events_of_threads_are_in_the_log_in_the_order_of_seq(session, events):
    def work(n):
        for i in range(500):
            session.emit("my:note", {"thread": n, "i": i})

    await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(4)))
    await asyncio.sleep(0)
    session.emit("my:last", {})
    found = events("my:note")  # the fixture checks `seq`
    for n in range(4):
        assert [each["data"]["i"] for each in found if each["data"]["thread"] == n] == list(range(500))
    await session.end()
    assert len(events("my:note")) == 2000


async def test_an_event_of_a_thread_wakes_an_observer(session):
    heard = asyncio.get_running_loop().create_future()

    async def hear(event):
        heard.set_result(event.data)

    await session.register_hook("my:*", hear)
    thread = threading.Thread(target=session.emit, args=("my:note", {"n": 1}))
    thread.start()
    assert await asyncio.wait_for(heard, 5) == {"n": 1}
    thread.join()


async def test_an_event_of_a_thread_has_the_data_of_the_moment(session, events):
    numbers = [1]
    data = {"list": numbers, "large": "x" * 9000}

    def work():
        session.emit("my:note", data)
        numbers.append(2)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    await session.end()
    (note,) = events("my:note")
    assert note["data"] == {"list": [1], "large": {"$omitted": 9002}}


@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("nonsense", {}, "event: expected namespace:verb, got 'nonsense'"),
        ("session:end", {}, "event: session:end is the kernel's own"),
        (5, {}, "event: expected namespace:verb, got 5"),
    ],
)
async def test_an_event_of_a_thread_that_is_refused_is_told(session, events, event, data, message):
    await asyncio.to_thread(session.emit, event, data)
    await session.end()
    (dropped,) = events("events:dropped")
    assert dropped["error"]["message"] == message


async def test_data_of_a_thread_that_are_no_json_are_told(session, events):
    await asyncio.to_thread(session.emit, "my:note", {"good": 1, "bad": {1}})
    await asyncio.to_thread(session.emit, "my:none")
    await session.end()
    (note,) = events("my:note")
    assert note["data"] == {"good": 1}
    assert note["error"]["code"] == "bad_request"
    assert len(events("my:none")) == 1


async def test_a_thread_may_emit_in_the_debug_mode_of_asyncio(session, events):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        await asyncio.to_thread(session.emit, "my:note", {})
    finally:
        loop.set_debug(False)
    await session.end()
    assert len(events("my:note")) == 1


async def test_what_threads_emit_until_the_close_is_in_the_log(log, events):
    """Each event is in the log, or its `emit` was refused."""
    emitted, refused = [], []

    def work():
        while not refused:
            try:
                session.emit("my:note", {"n": len(emitted)})
            except BadRequest as error:
                refused.append(str(error))
            else:
                emitted.append(len(emitted))
                time.sleep(0)  # the loop has its turns

    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("x"))
        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.sleep(0.1)
    thread.join()
    assert refused == ["bad_request: the kernel is closed"]
    dropped = [each for each in events("events:dropped") if each["data"].get("event") == "my:note"]
    assert len(events("my:note")) + len(dropped) == len(emitted)


async def test_a_call_that_the_close_has_made_is_not_refused():
    made = []
    inbox = Inbox(asyncio.get_running_loop())

    class Late(deque):
        """Closes the inbox between its two looks, as another thread may."""

        def append(self, call):
            super().append(call)
            inbox.close("closed")

    inbox._calls = Late()
    inbox.leave(lambda: made.append(1))
    assert made == [1]


def test_an_event_after_the_loop_is_closed_is_refused(tmp_path):
    async def main():
        kernel = await Kernel(event_log=tmp_path / "log").open()
        return kernel, await kernel.session.create(Plan("x"))

    kernel, session = asyncio.run(main())
    caught = []

    def work():
        try:
            session.emit("my:note", {})
        except BadRequest as error:
            caught.append(error.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == ["the kernel's event loop is closed"]
    kernel._runtime.bus.close()


def calls(kernel, session, descriptor):
    async def hear(event):
        pass

    return {
        "create": lambda: kernel.session.create(Plan("x")),
        "fork": lambda: kernel.session.fork(session),
        "end": lambda: kernel.session.end(session),
        "describe_host": kernel.describe_host,
        "close": kernel.close,
        "session.fork": session.fork,
        "session.end": session.end,
        "mount": lambda: session.mount("/mnt/tools", descriptor, trusted=True),
        "unmount": lambda: session.unmount("/mnt/tools"),
        "mounts": session.mounts,
        "describe": lambda: session.describe(ECHO),
        "invoke": lambda: session.invoke(ECHO, "echo", {}),
        "invoke nothing": lambda: session.invoke("/mnt/tools/nothing", "echo", {}),
        "stream": lambda: session.stream(ECHO, "echo", {}).result(),
        "chunk": lambda: anext(session.stream(ECHO, "echo", {})),
        "register_hook": lambda: session.register_hook("my:*", hear),
        "context.get": session.context.get,
        "context.set_fragment": lambda: session.context.set_fragment("k", 1),
        "async with": session.__aenter__,
    }


NAMES = [
    "create", "fork", "end", "describe_host", "close", "session.fork", "session.end", "mount", "unmount", "mounts",
    "describe", "invoke", "invoke nothing", "stream", "chunk", "register_hook", "context.get", "context.set_fragment",
    "async with",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_each_call_from_another_loop_is_refused_and_leaves_no_trace(kernel, mounted, module, events, name):
    call = calls(kernel, mounted, module("echo.py", name="two"))[name]
    before = events()

    def elsewhere():
        with pytest.raises(BadRequest, match="the kernel belongs to another event loop"):
            asyncio.run(wait(call()))

    await asyncio.to_thread(elsewhere)
    assert events() == before
    assert await mounted.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}


async def wait(awaitable):
    return await awaitable


@pytest.mark.parametrize("name", NAMES)
async def test_each_call_without_a_loop_of_asyncio_is_refused(kernel, mounted, module, events, name):
    call = calls(kernel, mounted, module("echo.py", name="two"))[name]

    def elsewhere():
        awaitable = wait(call())
        with pytest.raises(BadRequest, match="the kernel needs asyncio: none of its event loops runs in this thread"):
            awaitable.send(None)

    await asyncio.to_thread(elsewhere)


def test_a_kernel_is_not_opened_without_a_loop_of_asyncio(monkeypatch, log):
    monkeypatch.setitem(sys.modules, "trio", sys)
    with pytest.raises(BadRequest, match=r"the kernel needs asyncio \(trio cannot run it\)"):
        Kernel(event_log=log).open().send(None)
    assert not log.exists()


async def test_a_running_stream_is_refused_to_another_loop(mounted, events):
    stream = mounted.stream(ECHO, "sleep", {"seconds": 60})
    async with stream:
        for use in (stream.result, stream.aclose, stream.__anext__, stream.__aenter__):

            def elsewhere(use=use):
                with pytest.raises(BadRequest, match="belongs to another event loop"):
                    asyncio.run(wait(use()))

            await asyncio.to_thread(elsewhere)
        assert events("module:invoke") == []


async def test_a_stream_that_another_thread_collects_is_cancelled(mounted, events):
    streams = [mounted.stream(ECHO, "sleep", {"seconds": 60})]
    await streams[0].__aenter__()
    await asyncio.sleep(0.05)

    def collect():
        streams.clear()
        gc.collect()

    await asyncio.to_thread(collect)
    for _ in range(100):
        if events("module:invoke"):
            break
        await asyncio.sleep(0.02)
    assert events("module:invoke")[0]["error"]["code"] == "cancelled"


# What reads well.


async def test_a_session_ends_with_its_block(kernel, events):
    async with await kernel.session.create(Plan("x")) as session:
        assert await session.mounts() == []
    with pytest.raises(BadRequest, match="has ended"):
        await session.mounts()
    with pytest.raises(ZeroDivisionError):
        async with await kernel.session.create(Plan("x")) as second:
            raise ZeroDivisionError
    ends = [(each["session_id"], each["status"]) for each in events("session:end")]
    assert ends == [(session.session_id, "ok"), (second.session_id, "error")]


async def test_a_block_whose_session_has_ended_ends_quietly(kernel, log):
    async with await kernel.session.create(Plan("x")) as session:
        await session.end("early")
    async with await kernel.session.create(Plan("x")) as session:
        await kernel.close()
    with pytest.raises(BadRequest):
        async with session:
            pass


async def test_forks_and_ends_take_a_session_or_its_id(kernel, session):
    forks = [await session.fork(), await kernel.session.fork(session), await kernel.session.fork(session.session_id)]
    assert {each.parent_id for each in forks} == {session.session_id}
    assert await kernel.session.end(forks[0]) == {}
    assert await kernel.session.end(forks[1].session_id) == {}
    assert await forks[2].end("done") == {}
    for each in forks:
        with pytest.raises(BadRequest, match=f"no session '{each.session_id}' is open"):
            await each.end()


async def test_a_kernel_is_opened_without_a_block(log, events):
    kernel = await Kernel(event_log=log).open()
    session = await kernel.session.create(Plan("x"))
    with pytest.raises(BadRequest, match="opened once"):
        await kernel.open()
    await kernel.close()
    assert [each["event"] for each in events()] == ["session:start", "session:end"]
    with pytest.raises(BadRequest, match="the kernel is closed"):
        session.emit("my:note", {})


async def test_a_kernel_that_was_not_opened_says_how(log):
    with pytest.raises(BadRequest, match="use it in `async with`, or await its open()"):
        await Kernel(event_log=log).session.create(Plan("x"))


async def test_objects_show_what_they_are(log, module):
    kernel = Kernel(event_log=log)
    assert repr(kernel) == "<Kernel: not open yet, log None>"
    async with kernel:
        assert repr(kernel.session) == "<Sessions: none open>"
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.context.set_fragment("k", 1)
        assert repr(kernel) == f"<Kernel: 1 sessions, log {log}>"
        assert repr(kernel.session) == f"<Sessions: {session.session_id}>"
        assert repr(session) == f"<Session {session.session_id}: open, 1 mounts>"
        assert repr(session.context) == f"<Context of {session.session_id}: 1 fragments>"
        stream = session.stream(ECHO, "echo", {})
        assert repr(stream) == "<Stream: not started>"
        async with stream:
            assert repr(stream) == "<Stream: running>"
            await stream.result()
            assert repr(stream) == "<Stream: ended>"
    assert repr(session) == f"<Session {session.session_id}: ended, 0 mounts>"
    assert repr(kernel) == f"<Kernel: closed, log {log}>"


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((Path(__file__).parents[2] / "amplifier_core" / "pyproject.toml").read_text("utf-8"))
    assert amplifier_core.__version__ == project["project"]["version"]


def test_the_words_of_the_protocol_are_types():
    assert "/mnt/tools" in get_args(amplifier_core.MountPath)
    assert "orchestrator" in get_args(amplifier_core.ModuleKind)
    assert get_args(amplifier_core.Verdict) == ("allow", "deny", "abstain")
    assert get_args(amplifier_core.Scope) == ("call", "session")
    decision: amplifier_core.Decision = {"decision": "allow", "scope": "session"}
    hook: amplifier_core.Hook = allow
    assert decision["decision"] == "allow"
    assert hook is allow
