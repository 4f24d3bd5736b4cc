"""Replays of what is beside calls: sessions, mounts, context, observers, spans and events."""

import asyncio
import contextlib
import threading

import pytest

from amplifier_core import Kernel, KernelError

ECHO, CALLER = "/mnt/tools/echo", "/mnt/orchestrators/caller"
ALL = [
    "sys:invoke:*", "sys:context.get", "sys:context.set_fragment", "sys:mounts", "sys:register_hook", "sys:mount",
    "sys:unmount", "sys:describe", "sys:emit", "sys:session.create", "sys:session.fork", "sys:session.end",
]  # fmt: skip


async def allow(event):
    return {"decision": "allow"}


@pytest.fixture
def both(module):
    async def mount(session):
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        one = module("caller.py", kind="orchestrator", capabilities=ALL)
        await session.mount("/mnt/orchestrators", one, trusted=True)

    return mount


async def failing(work):
    with contextlib.suppress(KernelError):
        await work
        pytest.fail("expected an error")


def call(name, /, **args):
    return {"name": name, "args": args}


async def test_sessions_of_the_embedder(run, both):
    async def program(kernel, session):
        await both(session)
        await session.context.set_fragment("k", {"a": ["\u2028", 2**70, 1.5, None]})
        fork = await session.fork()
        other = await kernel.session.fork(fork.session_id)
        third = await kernel.session.create({"goal": "g", "inputs": {"x": 1}, "extra": 7})
        await fork.context.set_fragment("k2", None)
        await fork.context.get()
        await other.invoke(ECHO, "echo", {"n": 1})
        await session.end("done \u2028")
        await fork.invoke(CALLER, "call", {"syscalls": [call("context.get"), call("mounts")]})
        await fork.unmount("/mnt/tools")
        await failing(fork.invoke(ECHO, "echo", {}))
        await failing(fork.unmount("/mnt/tools"))
        await failing(fork.context.set_fragment("", 1))
        await other.unmount("/mnt/tools", "echo")
        await kernel.session.end(other)
        await third.end()
        async with await kernel.session.create({"goal": "z", "inputs": {}}):
            pass

    await run(program)


async def test_sessions_of_modules(run, both, module):
    async def program(kernel, session):
        await both(session)
        made = await session.invoke(
            CALLER, "call", {"syscalls": [call("session.create", plan={"goal": "g", "inputs": {}})] * 3}
        )
        ids = [each["result"]["session_id"] for each in made["results"]]
        forks = await session.invoke(
            CALLER, "call", {"syscalls": [call("session.fork", parent_id=session.session_id)] * 2}
        )
        ids += [each["result"]["session_id"] for each in forks["results"]]
        inside = [call("context.set_fragment", key="k", value=[1], session_id=each) for each in ids]
        inside += [call("invoke", path=ECHO, op="echo", args={"n": 1}, session_id=each) for each in ids]
        inside += [call("context.get", session_id=each) for each in ids]
        inside += [
            call("emit", event="a:b", data={"n": 1}, session_id=ids[0]),
            call("context.get", session_id="ses_none"),
        ]
        await session.invoke(CALLER, "call", {"syscalls": inside})
        slow = [call("invoke", path=ECHO, op="sleep", args={"seconds": 30}, session_id=each) for each in ids[3:]]
        task = asyncio.create_task(session.invoke(CALLER, "call", {"syscalls": slow}))
        await session.invoke(ECHO, "sleep", {"seconds": 0.05})
        await session.invoke(CALLER, "call", {"syscalls": [call("session.end", session_id=each) for each in ids[::-1]]})
        await task
        await session.invoke(CALLER, "call", {"syscalls": [call("session.create", plan={})]})

    await run(program)


async def test_mounts_of_modules(run, both, module):
    def told(one, **fields):
        return {
            "name": one.name,
            "kind": one.kind,
            "capabilities": list(one.capabilities),
            "transport": dict(one.transport),
            **fields,
        }

    async def program(kernel, session):
        await both(session)
        good = told(module("echo.py", name="e2"))
        calls = [
            call("mount", path="/mnt/tools", descriptor=good),
            call("mount", path="/mnt/tools", descriptor={**good, "name": "no"}),
            call("mount", path="/mnt/nowhere", descriptor=good),
            call("mount", path="/mnt/tools", descriptor={"name": "x"}),
            call("describe", path=ECHO),
            call("unmount", path="/mnt/tools", name="e2"),
            call("register_hook", event="a:b", endpoint_ref=ECHO, priority=1),
            call("register_hook", event="policy:request", endpoint_ref=ECHO, priority=1),
        ]
        for each in calls:
            with contextlib.suppress(KernelError):
                await session.invoke(CALLER, "call", {"syscalls": [each]})
        await failing(session.invoke(ECHO, "echo", {}))

    await run(program)


async def test_mounts_of_a_module_in_isolation(run, module):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        one = module("caller.py", kind="orchestrator", capabilities=["sys:mount", "sys:invoke:*"])
        await session.mount("/mnt/orchestrators", one, trusted=True)
        two = module("echo.py")
        told = {"name": "echo", "kind": "tool", "capabilities": [], "transport": dict(two.transport)}
        await session.invoke(CALLER, "call", {"syscalls": [call("mount", path="/mnt/tools", descriptor=told)]})
        with contextlib.suppress(KernelError):
            await session.invoke(ECHO, "echo", {})
        await session.mount(
            "/mnt/tools",
            module("echo.py", name="e2", capabilities=["fs:read:/tmp", "net:connect:example.org:80"]),
            trusted=True,
        )
        with contextlib.suppress(KernelError):
            await session.mount("/mnt/tools", module("echo.py", name="e3", capabilities=["fs:read:/tmp"]))
            await session.invoke("/mnt/tools/e3", "echo", {})
        await failing(session.mount("/mnt/tools", module("misbehaving.py", "m", "start", "os._exit(4)", name="m")))

    await run(program, isolation=None)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("start", "say('no'); os._exit(3)"),
        ("health", "reply({'status': 'bad'})"),
        ("health", "pass"),
        ("health", "os._exit(1)"),
        ("describe", "reply({})"),
        ("describe", "reply(DESCRIPTION | {'name': 'other'})"),
        ("describe", 'line(\'"ok":false,"error":{"code":"mine","message":"no"}}\')'),
        ("describe", "pass"),
        ("describe", "out('noise\\n'); reply(DESCRIPTION)"),
        ("describe", "reply(DESCRIPTION | {'inputs': {'a': {'type': 7}}, 'outputs': {'a': {}}})"),
    ],
)
async def test_mounts_that_fail(run, module, place, code):
    async def program(kernel, session):
        one = module("misbehaving.py", "m", place, code, name="m")
        for _ in range(2):
            with contextlib.suppress(KernelError):
                await session.mount("/mnt/tools", one, trusted=True, timeout=0.5)

    await run(program)


async def test_mounts_of_what_is_not_there(run, module):
    def stdio(*command, **fields):
        return {
            "name": "m",
            "kind": "tool",
            "capabilities": [],
            "transport": {"type": "stdio", "command": [*command], **fields},
        }

    async def program(kernel, session):
        for told in (
            stdio("/nonesuch"),
            stdio("nonesuch", env={"SECRET": "hush"}),
            stdio("/etc/passwd"),
            stdio(),
            {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "nonesuch"}},
            {
                "name": "m",
                "kind": "tool",
                "capabilities": [],
                "transport": {"type": "http", "url": "http://127.0.0.1:9"},
            },
            {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "inproc", "object": "nonesuch:x"}},
            {"name": "m"},
        ):
            await failing(session.mount("/mnt/tools", told, trusted=True))
        await failing(session.mount("/mnt/tools", module("echo.py")))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await failing(session.mount("/mnt/tools", module("echo.py"), trusted=True))
        await failing(session.mount("/mnt/nowhere", module("echo.py"), trusted=True))

    await run(program)


async def test_a_mount_that_is_cancelled_or_ended_with_its_session(run, module):
    async def program(kernel, session):
        one = module("misbehaving.py", "m", "describe", "time.sleep(30)", name="m")
        task = asyncio.create_task(session.mount("/mnt/tools", one, trusted=True))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.wait([task])
        task = asyncio.create_task(session.mount("/mnt/tools", one, trusted=True))
        await asyncio.sleep(0.3)
        await session.end()
        await asyncio.wait([task])

    await run(program)


async def test_spans_and_events_of_the_embedder(run, both):
    async def program(kernel, session):
        await both(session)
        remote = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with session.span("a", data={"x": {1}}) as outer:
            outer.data["y"] = 2
            session.emit("my:event", {"n": 1})
            with session.span("b", traceparent=remote):
                await session.invoke(ECHO, "echo", {})
                await session.invoke(ECHO, "echo", {}, traceparent=remote)
                fork = await session.fork()
                await fork.context.set_fragment("k", 1)

            async def in_task(n):
                with session.span(f"t{n}"):
                    await asyncio.sleep(0.001 * (n % 3))
                    await session.invoke(CALLER, "call", {"syscalls": [call("emit", event="x:y", data={"n": n})]})
                    session.emit("my:event", {"n": n})

            async with asyncio.TaskGroup() as group:
                for n in range(6):
                    group.create_task(in_task(n))
        with contextlib.suppress(ValueError), session.span("raises"):
            raise ValueError("x")
        await session.invoke(ECHO, "echo", {}, traceparent=remote)
        await session.invoke(ECHO, "echo", {}, traceparent="nonsense")
        await session.stream(ECHO, "echo", {}, traceparent=remote).result()
        session.emit("my:event")
        session.emit("my:event", {"s": {1, 2}, "b": b"x", "n": 1})
        session.emit("nonsense", {})
        session.emit("kernel:start", {})
        session.emit("session:span", {})
        session.emit(7, {})
        session.emit("x" * 400)
        session.emit("my:event", {"\u2028": "\x7f\x85", "big": 2**80, "f": 1e-7})

        def elsewhere(k):
            for n in range(20):
                session.emit("thread:event", {"k": k, "n": n})

        threads = [threading.Thread(target=elsewhere, args=(k,)) for k in range(3)]
        for each in threads:
            each.start()
        await asyncio.gather(*(session.invoke(ECHO, "echo", {"n": n}) for n in range(5)))
        for each in threads:
            each.join()
        session.emit("bad:data", [1])

    await run(program)


async def test_observers(run, both, module, tmp_path):
    heard = []

    async def hears(event):
        heard.append(event)
        if len(heard) % 7 == 0:
            raise ValueError("no")

    async def slow(event):
        await asyncio.sleep(0.01)

    async def program(kernel, session):
        await session.register_hook("*", hears)
        await both(session)
        await session.mount("/mnt/hooks", module("hook.py", tmp_path / "file", kind="hook"), trusted=True)
        await session.register_hook("*", "/mnt/hooks/hook")
        code = 'line(\'"ok":true,"result":{},"events":[{"event":"o:k","data":{"n":1}},{"event":"kernel:end"},{}]}\')'
        await session.mount("/mnt/tools", module("misbehaving.py", "m", "on_event", code, name="m"), trusted=True)
        await session.register_hook("my:*", "/mnt/tools/m")
        await session.register_hook("*", slow, priority=3)
        await failing(session.register_hook("nonsense ", hears))
        await failing(session.register_hook("a:b", 7))
        for n in range(30):
            session.emit("my:event", {"n": n})
        await session.invoke(
            CALLER, "call", {"syscalls": [call("register_hook", event="x:*", endpoint_ref=ECHO, priority=0)]}
        )
        session.emit("x:y", {})
        await session.invoke(CALLER, "emit", {"events": [{"event": "x:z"}]})
        await session.invoke(ECHO, "sleep", {"seconds": 0.1})
        await session.unmount("/mnt/tools", "m")
        await session.unmount("/mnt/hooks")

    await run(program, observer_queue=10)


async def test_an_embedder_that_fails(log, module, again):
    with contextlib.suppress(ValueError):
        async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
            session = await kernel.session.create({"goal": "g", "inputs": {}})
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
            raise ValueError
    await again(log)
