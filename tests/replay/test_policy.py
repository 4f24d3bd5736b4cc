"""Replays of policy: hooks of every kind, what they grant and deny, and what they do while they are asked."""

import asyncio
import contextlib

import pytest
from tests.replay.scripted import open_transport, scripted

from amplifier_core import KernelError

ECHO, CALLER = "/mnt/tools/echo", "/mnt/orchestrators/caller"
ALL = ["sys:invoke:*", "sys:context.get", "sys:context.set_fragment", "sys:mounts", "sys:register_hook"]


async def allow(event):
    return {"decision": "allow"}


async def abstain(event):
    return {"decision": "abstain"}


def invoking(n=0):
    return {"name": "invoke", "args": {"path": ECHO, "op": "echo", "args": {"n": n}}}


@contextlib.asynccontextmanager
async def failing():
    try:
        yield
    except KernelError:
        return
    pytest.fail("expected an error")


@pytest.fixture
def both(module):
    async def mount(session):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        one = module("caller.py", kind="orchestrator", capabilities=ALL)
        await session.mount("/mnt/orchestrators", one, trusted=True)

    return mount


async def test_several_hooks_by_priority_of_one_name(run, both):
    def hook(answer):
        async def named(event):
            return answer if event.data["action"] != "mount" else {"decision": "allow"}

        return named

    async def program(kernel, session):
        for n, decision in enumerate(("abstain", "allow", "allow", "abstain")):
            await session.register_hook(
                "policy:request", hook({"decision": decision, "reason": f"{n}"}), priority=9 - n
            )
        await both(session)
        await session.invoke(ECHO, "echo", {})
        await session.register_hook("policy:request", hook({"decision": "deny", "reason": "no"}), priority=-5)
        async with failing():
            await session.invoke(ECHO, "echo", {})

    await run(program)


async def test_grants_that_are_narrowed_and_that_hold_for_the_session(run, module):
    async def narrow(event):
        if event.data["action"] == "mount":
            return {"decision": "allow", "capabilities": ["fs:read:/tmp/a", "x-c:d"], "scope": "call"}
        return {"decision": "allow", "scope": "session"}

    async def program(kernel, session):
        await session.register_hook("policy:request", narrow)
        await session.mount("/mnt/tools", module("echo.py", capabilities=["fs:read:/tmp", "x-c:d"]), trusted=True)
        await session.invoke(ECHO, "echo", {})
        await session.invoke(ECHO, "echo", {})
        fork = await session.fork()
        await fork.invoke(ECHO, "echo", {})
        await fork.register_hook("policy:request", allow)
        await fork.invoke(ECHO, "echo", {})
        await session.invoke(ECHO, "echo", {})

    await run(program)


async def test_denials_at_the_mount_at_the_call_and_at_a_system_call(run, both, module):
    def denies(*actions):
        async def hook(event):
            if event.data["action"] in actions:
                return {"decision": "deny", "reason": "\u2028no\x00"}
            return {"decision": "allow"}

        return hook

    async def program(kernel, session):
        await session.register_hook("policy:request", denies("context.get"))
        await both(session)
        calls = [{"name": "context.get"}, {"name": "context.set_fragment", "args": {"key": "k", "value": [1]}}]
        await session.invoke(CALLER, "call", {"syscalls": [*calls, invoking(), {"name": "mounts"}]})
        await session.register_hook("policy:request", denies("invoke", "mount"))
        async with failing():
            await session.invoke(ECHO, "echo", {})
        async with failing():
            await session.mount("/mnt/tools", module("echo.py", name="other"), trusted=True)

    await run(program)


@pytest.mark.parametrize("fault", ["raises", "kernel error", "garbage", "slow", "cancels itself", "none"])
async def test_hooks_that_fail(run, both, fault):
    async def hook(event):
        if event.data["action"] == "mount":
            return {"decision": "allow"}
        match fault:
            case "raises":
                raise ValueError("a\nb")
            case "kernel error":
                raise KernelError("mine", code="mine", details={"a": 1})
            case "garbage":
                return {"decision": "perhaps"}
            case "slow":
                await asyncio.sleep(30)
            case "cancels itself":
                raise asyncio.CancelledError
        return None

    async def program(kernel, session):
        await session.register_hook("policy:request", abstain, priority=-1)
        await session.register_hook("policy:request", hook)
        await both(session)
        for _ in range(2):
            async with failing():
                await session.invoke(ECHO, "echo", {})

    await run(program, policy_timeout=0.1)


async def test_hooks_that_take_their_time_while_others_are_asked(run, both):
    async def slow(event):
        await asyncio.sleep((hash(event.span_id) % 5) / 100)
        return {"decision": "allow", "reason": str(event.data.get("args"))}

    async def program(kernel, session):
        await session.register_hook("policy:request", slow)
        await session.register_hook("policy:request", abstain, priority=1)
        await both(session)
        calls = [{"name": "context.set_fragment", "args": {"key": f"k{n}", "value": n}} for n in range(6)]
        calls += [{"name": "context.get"} for _ in range(3)]
        calls += [invoking(n) for n in range(5)]
        work = [session.invoke(CALLER, "call", {"syscalls": calls}) for _ in range(4)]
        work += [session.invoke(ECHO, "echo", {"n": n}) for n in range(20)]
        await asyncio.gather(*work)

    await run(program)


async def test_hooks_that_call_through_the_session_while_they_are_asked(run, both):
    async def program(kernel, session):
        async def asks(event):
            if event.data["action"] == "invoke" and event.data["op"] == "call":
                session.emit("hook:asked", {"about": event.data["path"]})
                await session.context.set_fragment("asked", event.span_id)
                await session.context.get()
                result = await session.invoke(ECHO, "echo", {"about": event.data["op"]})
                with session.span("hook.step", data={"n": 1}):
                    await session.invoke(ECHO, "echo", {"about": 2})
                await asyncio.gather(*(session.invoke(ECHO, "echo", {"n": n}) for n in range(3)))
                return {"decision": "allow", "reason": str(result)}
            return {"decision": "allow"}

        await session.register_hook("policy:request", asks)
        await session.register_hook("policy:request", abstain, priority=2)
        await both(session)
        calls = [invoking(1), {"name": "context.get"}, invoking(2)]
        await asyncio.gather(*(session.invoke(CALLER, "call", {"syscalls": calls}) for _ in range(3)))

    await run(program)


async def test_a_hook_that_is_asked_about_its_own_calls_without_end(run, module):
    async def program(kernel, session):
        async def asks(event):
            if event.data["action"] == "invoke":
                await session.invoke(ECHO, "echo", {})
            return {"decision": "allow"}

        await session.register_hook("policy:request", asks)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        async with failing():
            await session.invoke(ECHO, "echo", {})

    await run(program)


@pytest.mark.parametrize("answer", ["allow", "deny", "abstain", "garbage", "fail", "exit", "hang"])
async def test_modules_as_hooks_between_callables(run, both, module, tmp_path, answer):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow, priority=-1)
        await both(session)
        await session.mount("/mnt/hooks", module("hook.py", tmp_path / "file", answer, kind="hook"), trusted=True)
        await session.register_hook("policy:request", "/mnt/hooks/hook")
        await session.register_hook("policy:request", allow, priority=1)
        await session.register_hook("policy:request", abstain, priority=1)
        await session.register_hook("a:b", "/mnt/hooks/hook")
        for _ in range(2):
            with contextlib.suppress(KernelError):
                await session.invoke(ECHO, "echo", {})
        with contextlib.suppress(KernelError):
            await session.invoke(CALLER, "call", {"syscalls": [invoking(), invoking()]})
        session.emit("a:b", {"n": 1})

    await run(program, policy_timeout=0.5)


async def test_a_module_that_is_asked_about_system_calls_after_a_callable_that_answers_at_once(run):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", scripted("echo"))
        await session.mount("/mnt/orchestrators", scripted("caller", "orchestrator", ALL))
        await session.mount("/mnt/hooks", scripted("hook", "hook"))
        await session.register_hook("policy:request", "/mnt/hooks/hook", priority=1)
        get = {"name": "context.get"}
        await session.invoke(CALLER, "call", {"syscalls": [get, invoking(1), {"name": "mounts"}, invoking(2), get]})

    await run(program, open_transport=open_transport)


async def test_a_hook_that_is_registered_while_a_module_is_mounted(run):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        for turns in range(12):
            mounting = asyncio.create_task(session.mount("/mnt/tools", scripted(f"m{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            await session.register_hook("policy:request", abstain)
            await mounting

    await run(program, open_transport=open_transport)


async def test_hooks_that_are_registered_while_calls_are_in_progress(run, both):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        await both(session)
        slow = {"name": "invoke", "args": {"path": ECHO, "op": "sleep", "args": {"seconds": 0.2}}}
        work = [asyncio.create_task(session.invoke(CALLER, "call", {"syscalls": [slow, slow]})) for _ in range(3)]
        await session.invoke(ECHO, "sleep", {"seconds": 0.05})
        await session.register_hook("policy:request", abstain)
        await asyncio.wait(work)
        slow = {"name": "invoke", "args": {"path": ECHO, "op": "sleep", "args": {"seconds": 0.1}}}
        work = [asyncio.create_task(session.invoke(CALLER, "call", {"syscalls": [slow, slow]})) for _ in range(2)]
        await session.invoke(ECHO, "sleep", {"seconds": 0.02})

        async def deny(event):
            return {"decision": "deny"}

        await session.register_hook("policy:request", deny)
        await asyncio.wait(work)

    await run(program)


@pytest.mark.parametrize("way", ["timeout", "cancel", "end", "close"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("op", ["invoke", "context.get"])
async def test_a_call_that_is_given_up_while_a_hook_is_asked(run, both, way, nested, op):
    asked = asyncio.Event()

    async def hangs(event):
        if event.data["action"] == op and (not nested or "caller" in event.data or op != "invoke"):
            asked.set()
            await asyncio.sleep(30)
        return {"decision": "allow"}

    async def program(kernel, session):
        await session.register_hook("policy:request", abstain, priority=-1)
        await session.register_hook("policy:request", hangs)
        await both(session)
        path, name, args = ECHO, "echo", {}
        if nested or op != "invoke":
            call = {"name": op} if op != "invoke" else invoking()
            path, name, args = CALLER, "call", {"syscalls": [call, call] if nested else [call]}
        task = asyncio.create_task(session.invoke(path, name, args, timeout=0.3 if way == "timeout" else None))
        await asked.wait()
        if way == "cancel":
            task.cancel()
        elif way == "end":
            await session.end()
        elif way == "close":
            await kernel.close()
        await asyncio.wait([task])

    await run(program)


@pytest.mark.parametrize("way", ["timeout", "cancel", "end"])
async def test_a_mount_that_is_given_up_while_a_hook_is_asked(run, module, way):
    asked = asyncio.Event()

    async def hangs(event):
        asked.set()
        await asyncio.sleep(30)

    async def program(kernel, session):
        await session.register_hook("policy:request", hangs)
        seconds = 0.2 if way == "timeout" else None
        task = asyncio.create_task(session.mount("/mnt/tools", module("echo.py"), trusted=True, timeout=seconds))
        await asked.wait()
        if way == "cancel":
            task.cancel()
        elif way == "end":
            await session.end()
        await asyncio.wait([task])

    await run(program)
