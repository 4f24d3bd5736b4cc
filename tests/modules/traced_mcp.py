"""A server of MCP over stdio with the spans that the SDK of MCP makes: traced_mcp.py ENDPOINT."""

import sys

from mcp.server import MCPServer
from traced import tracer

tracer("sums", sys.argv[1])
server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


server.run()
