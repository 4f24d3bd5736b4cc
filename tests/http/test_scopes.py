"""Calls of a module over HTTP within the cancel scopes of anyio."""

from tests.scopes import check_scopes


async def test_a_scope_catches_its_own_cancellation(session, echo_module):
    await session.mount("/mnt/tools", echo_module())
    await check_scopes(session, "/mnt/tools/echo", "sleep", {"seconds": 1})
    assert await session.invoke("/mnt/tools/echo", "echo", {"n": 1}) == {"n": 1}
