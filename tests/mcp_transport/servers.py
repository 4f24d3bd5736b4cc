"""Servers of MCP whose every message a test writes: over stdio as a program, over HTTP on the test's own loop."""

import json

from tests.http.raw import Request, Server, respond

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "bad", "slow")]
INFO = {"name": "raw", "version": "1.2.3"}

PROLOGUE = """
import json, os, signal, subprocess, sys, time
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "bad", "slow")]
CAPABILITIES = {"tools": {}}
def out(text):
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    while data:
        data = data[os.write(1, data):]
def send(message):
    out(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
def reply(request, result):
    send({"id": request["id"], "result": result})
def fail(request, code, message, **more):
    send({"id": request["id"], "error": {"code": code, "message": message, **more}})
def told(text, **more):
    return {"content": [{"type": "text", "text": text}], **more}
def initialized(request):
    info = {"name": "raw", "version": "1.2.3"}
    version = request["params"]["protocolVersion"]
    return {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": info}
def discovered():
    page = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    return {**page, "supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
def standard(request):
    method = request["method"]
    if method == "initialize":
        reply(request, initialized(request))
    elif method == "ping":
        reply(request, {})
    elif method == "tools/list":
        reply(request, {"tools": TOOLS})
    elif method == "server/discover":
        fail(request, -32601, "Method not found")
    else:
        return False
    return True
def messages():
    for line in sys.stdin.buffer:
        yield json.loads(line)
def requests():
    for message in messages():
        if "id" in message and "method" in message and not standard(message):
            yield message
"""
"""What a program begins with: it answers all but calls of tools, which `requests` gives one by one."""

MODERN = """
def standard(request):
    method = request["method"]
    page = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    if method == "server/discover":
        reply(request, discovered())
    elif method == "tools/list":
        reply(request, {**page, "tools": TOOLS})
    else:
        return False
    return True
"""
"""What follows it in a program of the revision of 2026."""


class McpServer(Server):
    """A server over HTTP; ``call`` answers a call of a tool, and gets the request and its message."""

    def __init__(self, call=None, *, methods=None, session=None, tools=TOOLS, capabilities=None):
        super().__init__(self._answer)
        self.call = call or echo
        self.methods = methods or {}
        self.session = session
        self.tools = tools
        self.capabilities = capabilities or {"tools": {}}
        self.seen = []

    @property
    def url(self):
        return f"{self._base}/mcp"

    @url.setter
    def url(self, base):
        self._base = base

    async def _answer(self, request):
        if request.method != "POST":
            self.seen.append(request.method)
            await request.send(respond(b"", 405 if request.method == "GET" else 200))
            return
        message = request.params
        self.seen.append(message.get("method", "reply"))
        special = self.methods.get(message.get("method", "reply"))
        if special is not None:
            await special(request, message)
        elif "id" not in message or "method" not in message:
            await request.send(respond(b"", 202))
        elif message["method"] == "tools/call":
            await self.call(request, message)
        else:
            await request.send(self._standard(message))

    def _standard(self, message):
        headers = [f"mcp-session-id: {self.session}"] if self.session else []
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            told = {"protocolVersion": version, "capabilities": self.capabilities, "serverInfo": INFO}
            return json_of(result(message, told), headers)
        if message["method"] == "tools/list":
            return json_of(result(message, {"tools": self.tools}))
        if message["method"] == "ping":
            return json_of(result(message, {}))
        return json_of(error(message, -32601, "Method not found"))

    async def _answer_all(self, reader, writer, ended):
        while not writer.is_closing():
            request = Request(reader, writer, ended, await reader.readuntil(b"\r\n\r\n"))
            request.body = await reader.readexactly(int(request.headers.get("content-length", 0)))
            self.requests.append(request)
            await self.answer(request)


def result(message, value):
    """Make the reply to a message."""
    return {"jsonrpc": "2.0", "id": message["id"], "result": value}


def error(message, code, text, **more):
    """Make the reply of a failure."""
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text, **more}}


def told(text):
    """Make the result of a tool that says something."""
    return {"content": [{"type": "text", "text": text}]}


def json_of(value, headers=(), status=200):
    """Make a response that comes whole."""
    return respond(value, status, ["content-type: application/json", *headers])


def events(*texts, end=True):
    """Make a response that is a stream of events, each of them text with its own line ends."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [
        b"%x\r\n%b\r\n" % (len(data), data) for data in (text.encode("utf-8", "surrogateescape") for text in texts)
    ]
    return head + b"".join(parts) + (b"0\r\n\r\n" if end else b"")


def event(value, **fields):
    """Make one event: a message, or text as it is."""
    lines = [f"{name}: {each}" for name, each in fields.items()]
    return "\n".join([*lines, f"data: {value if isinstance(value, str) else json.dumps(value)}", "", ""])


async def echo(request, message):
    """Give back the arguments."""
    await request.send(json_of(result(message, told(json.dumps(message["params"]["arguments"])))))


async def never(request, message):
    """Leave a caller waiting, until it has gone."""
    await request.gone()
