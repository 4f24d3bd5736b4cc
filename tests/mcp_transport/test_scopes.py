"""Calls of a server of MCP within the cancel scopes of anyio, which the SDK uses as well."""

from tests.mcp_transport.servers import never
from tests.scopes import check_scopes


async def test_a_scope_catches_its_own_cancellation_over_stdio(session, describe, mount, script):
    code = """
if op == "good":
    reply(request, told("done"))
"""
    path = await mount(describe(script(code)))
    await check_scopes(session, path, "slow", {})
    assert (await session.invoke(path, "good", {}))["content"][0]["text"] == "done"


async def test_a_scope_catches_its_own_cancellation_over_http(session, describe, mount, serve):
    server = await serve(never)
    path = await mount(describe(server.url))
    await check_scopes(session, path, "slow", {})
