"""An STDIO module that behaves, but for one place, where it does what it is told.

misbehaving.py NAME PLACE CODE: PLACE is `start`, `health`, `describe`, or the op of an invocation; CODE is Python, and
sees `request` and all that is here. Any other invocation gives back its arguments.
"""

import json
import os
import signal
import subprocess
import sys
import time

NAME, PLACE, CODE = sys.argv[1:]
DESCRIPTION = {"name": NAME, "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
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
    begin = b'{"id":"%s",' % request["id"].encode()
    out(begin + (rest.encode() if isinstance(rest, str) else rest) + b"\n")


def reply(result):
    """Answer the request."""
    line(f'"ok":true,"result":{json.dumps(result)}}}')


def hear():
    """Wait for one more line on stdin."""
    return sys.stdin.buffer.readline()


def behave():
    """Answer as a module should."""
    if request["method"] == "health":
        reply({"status": "ok"})
    elif request["method"] == "describe":
        reply(DESCRIPTION)
    else:
        reply(request["params"]["args"])


if PLACE == "start":
    exec(CODE)
while heard := hear():
    request = json.loads(heard)
    if PLACE in (request["method"], request["params"].get("op")):
        exec(CODE)
    elif "id" in request:
        behave()
