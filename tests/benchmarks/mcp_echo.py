"""A server of MCP with one tool that echoes, as the SDK's lowlevel server makes it: the peer's module."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool

_TOOL = Tool(name="echo", input_schema={"type": "object", "properties": {"text": {"type": "string"}}})


async def _list(_: Any, __: Any) -> ListToolsResult:
    return ListToolsResult(tools=[_TOOL])


async def _call(_: Any, params: CallToolRequestParams) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=(params.arguments or {})["text"])])


async def main() -> None:
    """Serve until stdin ends."""
    server = Server("echo", on_list_tools=_list, on_call_tool=_call)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
