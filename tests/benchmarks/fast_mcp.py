"""A server of MCP that does as little as one can: over stdio, or with "http" over HTTP, until its stdin ends."""

import asyncio
import re
import sys
from typing import Any

import orjson

_TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


def answer(message: bytes) -> bytes:
    """Answer one message; give nothing for a notification."""
    request = orjson.loads(message)
    if "id" not in request:
        return b""
    result = result_of(request["method"], request.get("params", {}))
    failure = {"error": {"code": -32601, "message": "Method not found"}}
    return orjson.dumps({"jsonrpc": "2.0", "id": request["id"], **({"result": result} if result else failure)})


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Give the result of a request, or nothing for an unknown method."""
    if method == "tools/call":
        return {"content": [{"type": "text", "text": params["arguments"]["text"]}]}
    if method == "tools/list":
        return {"tools": [_TOOL]}
    if method == "initialize":
        info = {"name": "fast", "version": "1.0.0"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    return {"_meta": {}} if method == "ping" else None


def serve_stdio() -> None:
    """Answer lines."""
    for line in sys.stdin.buffer:
        if reply := answer(line):
            sys.stdout.buffer.write(reply + b"\n")
            sys.stdout.buffer.flush()


class Http(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport
    _unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, end, body = self._unread.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._unread = b""
        posted = head.startswith(b"POST")
        text = answer(body) if posted else b""
        status = "405 Method Not Allowed" if not posted else "200 OK" if text else "202 Accepted"
        self._transport.write(_HEAD.format(status, len(text)).encode() + text)


async def serve_http() -> None:
    """Print the address, and answer requests until stdin ends."""
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    if "http" in sys.argv:
        asyncio.run(serve_http())
    else:
        serve_stdio()
