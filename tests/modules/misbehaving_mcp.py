"""A server of MCP over stdio that behaves, but for one place, where it does what it is told.

misbehaving_mcp.py PLACE CODE: PLACE is `start`, a method, or the name of a tool; CODE is Python, and sees `request` and
all that is here. A call of any other tool gives back its arguments, as structured content.
"""

import json
import os
import signal
import subprocess
import sys
import time

PLACE, CODE = sys.argv[1:]
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "bad")]
SLEEPER = ["sleep", "600"]
__all__ = ["signal", "subprocess", "time"]  # for CODE


def out(data):
    """Write text, or bytes, to stdout, all of it."""
    data = data.encode() if isinstance(data, str) else data
    while data:
        data = data[os.write(1, data) :]


def say(text):
    """Write to stderr."""
    os.write(2, text.encode())


def line(rest):
    """Write a line that begins with the id of the request and goes on as given."""
    begin = b'{"jsonrpc":"2.0","id":%d,' % request["id"]
    out(begin + (rest.encode() if isinstance(rest, str) else rest) + b"\n")


def answer(result):
    """Answer the request with a result as it is."""
    line(f'"result":{json.dumps(result)}}}')


def reply(value):
    """Answer a call of a tool."""
    answer({"content": [], "structuredContent": value})


def hear():
    """Wait for one more line on stdin."""
    return sys.stdin.buffer.readline()


def behave():
    """Answer as a server should."""
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        info = {"name": "m", "version": "1.0.0"}
        answer({"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info})
    elif method == "tools/list":
        answer({"tools": TOOLS})
    elif method == "ping":
        answer({})
    elif method == "tools/call":
        reply(params["arguments"])
    else:
        line('"error":{"code":-32601,"message":"Method not found"}}')


if PLACE == "start":
    exec(CODE)
while heard := hear():
    request = json.loads(heard)
    if PLACE in (request.get("method"), request.get("params", {}).get("name")):
        exec(CODE)
    elif "id" in request:
        behave()
