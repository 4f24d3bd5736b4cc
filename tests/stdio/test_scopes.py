"""Calls of a module over STDIO within the cancel scopes of anyio, as web frameworks and SDKs use them."""

import asyncio

import anyio
import pytest
from tests.scopes import check_scopes, still_cancelled

from amplifier_core import Kernel, Plan

ECHO = "/mnt/tools/echo"


@pytest.fixture
async def mounted(session, module):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    return session


async def test_a_scope_catches_its_own_cancellation(mounted):
    await check_scopes(mounted, ECHO, "sleep", {"seconds": 60})
    assert await mounted.invoke(ECHO, "echo", {"n": 1}) == {"n": 1}


async def test_a_scope_around_a_call_that_waits_for_a_slot(session, module):
    await session.mount("/mnt/tools", module("echo.py", limits={"concurrency": 1}), trusted=True)
    first = asyncio.create_task(session.invoke(ECHO, "sleep", {"seconds": 60}))
    await asyncio.sleep(0.05)
    await check_scopes(session, ECHO, "echo", {})
    first.cancel()
    await asyncio.wait((first,))


async def test_a_scope_around_a_call_that_waits_for_a_grace(mounted):
    deaf = asyncio.create_task(mounted.invoke(ECHO, "deaf", {}))
    await asyncio.sleep(0.05)
    deaf.cancel()
    await asyncio.wait((deaf,))
    with anyio.move_on_after(0.2) as scope:
        await mounted.invoke(ECHO, "echo", {})
    assert scope.cancelled_caught


async def test_a_scope_around_a_mount_and_its_question_to_policy(session, module):
    async def think(event):
        await asyncio.sleep(60)

    with anyio.move_on_after(0.2) as scope:
        await session.mount(
            "/mnt/tools", module("misbehaving.py", "m", "start", "time.sleep(60)", name="m"), trusted=True
        )
    assert scope.cancelled_caught
    await session.register_hook("policy:request", think)
    with anyio.move_on_after(0.2) as scope:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert scope.cancelled_caught
    assert await session.mounts() == []


async def test_a_scope_around_a_whole_kernel(log, module):
    with anyio.move_on_after(0.5) as scope:
        async with Kernel(event_log=log) as kernel, await kernel.session.create(Plan("x")) as session:
            await session.mount("/mnt/tools", module("echo.py"), trusted=True, timeout=30)
            await session.invoke(ECHO, "sleep", {"seconds": 60})
    assert scope.cancelled_caught
    assert not still_cancelled()
    assert b'"session:end"' in log.read_bytes()
