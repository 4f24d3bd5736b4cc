"""Calls of a module over HTTP within the cancel scopes of anyio."""

import asyncio

import anyio
from tests.http.test_httpx import Module, serving
from tests.scopes import check_scopes, still_cancelled


async def test_a_scope_catches_its_own_cancellation(session, echo_module):
    await session.mount("/mnt/tools", echo_module())
    await check_scopes(session, "/mnt/tools/echo", "sleep", {"seconds": 1})
    assert await session.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}


async def test_a_scope_around_a_request_of_http2(connect):
    module = Module()
    async with serving(module) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        with anyio.CancelScope() as scope:
            asked = asyncio.create_task(module.asked.wait())  # a time could be over before it is
            asked.add_done_callback(lambda _: scope.cancel())
            await connection.request("invoke", b'{"args":"wait"}')
        assert scope.cancelled_caught
        assert not still_cancelled()
        await asyncio.wait_for(module.left.wait(), 10)
        await connection.close()
