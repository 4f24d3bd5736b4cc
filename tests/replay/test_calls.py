"""Replays of calls: results, streams, errors of each kind, turns, and cancellation."""

import asyncio
import contextlib

import pytest

from amplifier_core import KernelError

ECHO = "/mnt/tools/echo"
ALL = ["sys:invoke:*", "sys:emit", "sys:mount", "sys:unmount", "sys:mounts", "sys:describe", "sys:context.get"]


async def allow(event):
    return {"decision": "allow"}


async def failing(work):
    with contextlib.suppress(KernelError):
        await work
        pytest.fail("expected an error")


def invoking(path, op, args):
    return {"name": "invoke", "args": {"path": path, "op": op, "args": args}}


async def test_calls_of_every_kind_of_value(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        deep = {}
        for _ in range(60):
            deep = {"d": [deep]}
        for value in (
            None, "", "\u2028\u2029\x00\x1f\x7f\x85\u202e", "ünï\U0001f600", 1.5, 1e300, -0.0, 2**63, 2**64 - 1, deep,
            {"": None, "a": {}}, [[], {}, None, True],
        ):  # fmt: skip
            await session.invoke(ECHO, "echo", {"value": value})

    await run(program)


async def test_errors_of_modules_and_of_the_kernel(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        for code in (
            "mine",
            "bad_request",
            "internal",
            "forbidden",
            "timeout",
            "cancelled",
            "unreachable",
            "unsupported_op",
        ):
            await failing(
                session.invoke(ECHO, "fail", {"code": code, "message": f"it is {code}", "details": {"n": [1]}})
            )
        await failing(session.invoke(ECHO, "nonesuch", {}))
        await failing(session.invoke("/mnt/tools/nobody", "echo", {}))
        await failing(session.invoke(ECHO, "", {}))
        await failing(session.invoke(ECHO, "x" * 300, {}))
        await failing(session.invoke(ECHO, "echo", {"x": {1, 2}}))
        await failing(session.invoke(ECHO, "echo", []))
        await session.invoke(ECHO, "echo", {"x": 2**70})
        await failing(session.invoke(7, "echo", {}))
        await failing(session.invoke(ECHO, 7, {}))
        await failing(session.invoke("x" * 999, "echo", {}))

    await run(program)


@pytest.mark.parametrize(
    "code",
    [
        "out('no protocol\\n'); reply(1)",
        "line('\"ok\":true}')",
        "line('\"ok\":7}')",
        "line('\"result\":NaN}')",
        "line('\"chunk\":1}'); line('\"chunk\":[2]}'); reply(3)",
        'line(\'"ok":false,"error":{"code":"mine","message":"a\\\\nb"}}\')',
        'line(\'"ok":false,"error":{}}\')',
        'line(\'"pending":{"syscalls":[]}}\')',
        'line(\'"pending":{"syscalls":7}}\')',
        'line(\'"ok":true,"result":1,"events":[{"event":"a:b"},{"event":"kernel:end"},{"event":7},{}]}\')',
        'line(\'"ok":false,"error":{"code":"mine","message":"m"},"events":[{"event":"a:b","data":{"n":1}}]}\')',
        'line(\'"ok":true,"result":1,"events":[\' + \',\'.join([\'{"event":"a:b"}\'] * 1003) + \']}\')',
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
        "say('help' * 5000); os._exit(1)",
    ],
)
async def test_a_module_that_breaks_the_contract_or_dies_and_is_called_again(run, module, code):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("misbehaving.py", "m", "odd", code, name="m"), trusted=True)
        for op in ("fine", "odd", "fine", "odd", "fine"):
            with contextlib.suppress(KernelError):
                await session.invoke("/mnt/tools/m", op, {"n": 1})

    await run(program)


async def test_streams_that_are_read_slowly_left_early_or_fail(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/providers", module("streamer.py", kind="provider"), trusted=True)
        path = "/mnt/providers/streamer"
        async for _ in session.stream(path, "count", {"to": 50, "size": 2000}):
            await asyncio.sleep(0)
        async with session.stream(path, "endless", {}) as stream:
            async for chunk in stream:
                if chunk["n"] == 20:
                    break
        await failing(session.stream(path, "fail", {"to": 3}).result())
        await session.stream(path, "count", {"to": 2000}).result()
        stream = session.stream(path, "endless", {"pause": 0.001}, timeout=0.05)
        await failing(stream.result())

    await run(program)


async def test_nested_streams_and_turns_with_many_calls(run, module):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        for n in range(4):
            await session.mount("/mnt/tools", module("echo.py", name=f"e{n}"), trusted=True)
        for n in range(2):
            one = module("caller.py", kind="orchestrator", name=f"c{n}", capabilities=ALL)
            await session.mount("/mnt/orchestrators", one, trusted=True)
        inner = invoking(
            "/mnt/orchestrators/c1",
            "call",
            {"syscalls": [invoking(f"/mnt/tools/e{n % 4}", "echo", {"n": n}) for n in range(5)]},
        )
        calls = [
            inner,
            *(invoking(f"/mnt/tools/e{n}", "echo", {"n": n}) for n in range(4)),
            invoking("/mnt/tools/e1", "fail", {"code": "x", "message": "y"}),
        ]
        work = [
            session.invoke("/mnt/orchestrators/c0", "call", {"syscalls": calls, "state": {"k": k}}) for k in range(8)
        ]
        work += [
            session.invoke("/mnt/orchestrators/c0", "turns", {"count": 4, "syscall": {"name": "mounts"}})
            for _ in range(8)
        ]
        work += [session.invoke("/mnt/orchestrators/c1", "turns", {"count": 3, "syscall": inner}) for _ in range(8)]
        work += [session.invoke(f"/mnt/tools/e{n % 4}", "echo", {"n": n}) for n in range(40)]
        await asyncio.gather(*work)

    await run(program)


async def test_calls_that_wait_for_their_turn(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py", limits={"concurrency": 2}), trusted=True)
        work = [session.invoke(ECHO, "sleep", {"seconds": 0.01 * (n % 3)}) for n in range(10)]
        await asyncio.gather(*work)
        slow = [asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 5})) for _ in range(4)]
        await asyncio.sleep(0)
        await failing(session.invoke(ECHO, "echo", {}, timeout=0.05))
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)

    await run(program)


async def test_one_call_of_many_is_cancelled(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        tasks = [asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 0.2})) for _ in range(5)]
        await session.invoke(ECHO, "echo", {})
        tasks[2].cancel()
        await asyncio.wait(tasks)

    await run(program)


@pytest.mark.parametrize("way", ["cancel", "timeout", "end", "close", "unmount"])
async def test_a_call_with_nested_calls_is_given_up(run, module, way):
    async def program(kernel, session):
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        one = module("caller.py", kind="orchestrator", name="c", capabilities=ALL)
        await session.mount("/mnt/orchestrators", one, trusted=True)
        calls = [
            invoking(ECHO, "sleep", {"seconds": 30}),
            invoking(ECHO, "echo", {"n": 1}),
            invoking(ECHO, "sleep", {"seconds": 30}),
        ]
        two = invoking("/mnt/orchestrators/c", "call", {"syscalls": calls})
        seconds = 0.3 if way == "timeout" else None
        task = asyncio.create_task(
            session.invoke("/mnt/orchestrators/c", "call", {"syscalls": [two, *calls]}, timeout=seconds)
        )
        await session.invoke(ECHO, "sleep", {"seconds": 0.1})
        if way == "cancel":
            task.cancel()
        elif way == "end":
            await session.end("done")
        elif way == "unmount":
            await session.unmount("/mnt/tools", "echo")
        elif way == "close":
            await kernel.close()
        await asyncio.wait([task])

    await run(program)


async def test_limits_of_time(run, module):
    async def program(kernel, session):
        await session.mount("/mnt/tools", module("echo.py", limits={"timeout_ms": 100}), trusted=True)
        await failing(session.invoke(ECHO, "sleep", {"seconds": 5}))
        await session.mount(
            "/mnt/providers", module("streamer.py", name="s", kind="provider", limits={"idle_ms": 100}), trusted=True
        )
        await failing(session.stream("/mnt/providers/s", "endless", {"pause": 1}).result())

    await run(program)


async def test_a_large_result(run, module):
    code = "reply('x' * 30_000_000)"
    limits = {"message_bytes": 40_000_000}

    async def program(kernel, session):
        one = module("misbehaving.py", "m", "odd", code, name="m", limits=limits)
        await session.mount("/mnt/tools", one, trusted=True)
        await session.invoke("/mnt/tools/m", "odd", {})

    await run(program)
