"""The peer for tools: the client of the MCP SDK, calling the SDK's own lowlevel server over stdio."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, TextContent
from modules import text_of
from over_stdio import CALLERS
from rounds import at_once, sequential
from worker import serve

_SERVER = StdioServerParameters(command=sys.executable, args=[str(Path(__file__).with_name("mcp_echo.py"))])
_ARGS = text_of(200)


async def main() -> None:
    """Connect, then measure on request."""
    async with Client(_SERVER) as client:

        async def call() -> None:
            result = await client.call_tool("echo", _ARGS)
            assert isinstance(result, CallToolResult)
            (content,) = result.content
            assert isinstance(content, TextContent)
            assert content.text == _ARGS["text"]

        await serve(
            {
                "sequential": sequential(call),
                "at_once": at_once(call, CALLERS),
                "cpu": sequential(call, time.process_time),
                "cpu_at_once": at_once(call, CALLERS, time.process_time),
            }
        )


if __name__ == "__main__":
    asyncio.run(main())
