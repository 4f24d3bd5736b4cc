"""A server of MCP that costs as little as one can: over stdio, or with "http" over streamable HTTP, until stdin ends."""

import asyncio
import re
import sys

import orjson

TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
HEAD = "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


def answer(request):
    """Answer one message; nothing for a notification."""
    method, params = request["method"], request.get("params", {})
    if "id" not in request:
        return None
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    if method == "tools/call":
        return reply | {"result": {"content": [{"type": "text", "text": params["arguments"]["text"]}]}}
    if method == "tools/list":
        return reply | {"result": {"tools": [TOOL]}}
    if method == "initialize":
        info = {"name": "fast", "version": "1.0.0"}
        version = params["protocolVersion"]
        return reply | {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "ping":
        return reply | {"result": {}}
    return reply | {"error": {"code": -32601, "message": "Method not found"}}


def serve_stdio():
    """Answer lines."""
    for line in sys.stdin.buffer:
        reply = answer(orjson.loads(line))
        if reply is not None:
            sys.stdout.buffer.write(orjson.dumps(reply) + b"\n")
            sys.stdout.buffer.flush()


class Http(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self.data = b""
        reply = answer(orjson.loads(body)) if head.startswith(b"POST") else None
        text = b"" if reply is None else orjson.dumps(reply)
        status = "405 Method Not Allowed" if not head.startswith(b"POST") else "200 OK" if text else "202 Accepted"
        self.transport.write(HEAD.format(status, len(text)).encode() + text)


async def serve_http():
    """Answer requests, say where, and end with stdin."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Http, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if "http" in sys.argv:
    asyncio.run(serve_http())
else:
    serve_stdio()
