"""The faults of STDIO modules, in servers of MCP: the same codes, as soon.

Owns the cases. A cancelled call has no reply in MCP; what is asked instead is in the transport's README.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.conftest import MODULES
from tests.faults.case import Case
from tests.faults.of_stdio import (
    AT_ONCE,
    BEHAVE,
    CHILD,
    DEAF,
    DOUBLE_FORKED,
    EXIT,
    HOST,
    KILL,
    LATE,
    OWN_SESSION,
    SILENCE,
    STDERR,
    case,
)
from tests.faults.stage import MARK, MODULE, wait_for_end, wait_for_start

from amplifier_core import ModuleDescriptor

if TYPE_CHECKING:
    from tests.faults.stage import Stage

START = 1.5
"""Seconds that a mount may take beside its fault: an interpreter, the SDK's import the first time, and a handshake."""


def structured(result: Any) -> Any:
    """Give what a tool answered."""
    return result["structuredContent"]


def server(stage: Stage, place: str, code: str, **fields: Any) -> ModuleDescriptor:
    """Describe tests/modules/misbehaving_mcp.py, which runs ``code`` at ``place``."""
    return started(stage, [sys.executable, "-S", str(MODULES / "misbehaving_mcp.py"), place, code], **fields)


def started(stage: Stage, command: list[str], **fields: Any) -> ModuleDescriptor:
    """Describe a server by its command line."""
    stage.plain = structured
    transport = {"type": "mcp", "command": command, "env": {MARK: stage.mark}}
    told = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport, **fields}
    return ModuleDescriptor.from_mapping(told, base=stage.folder)


def call(
    name: str, code: str, bad: str, *, bound: float = AT_ONCE, siblings: int = 0, limits: Any = None, **expected: Any
) -> Case:
    """Make a case of a call, ``bad``, and of others of the same process that must not suffer."""

    async def play(stage: Stage) -> None:
        await stage.mount(server(stage, "bad", bad, limits=limits or {}))
        await stage.bad(siblings=siblings)

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def fine(name: str, bad: str, result: Any, **expected: Any) -> Case:
    """Make a case of a call that may not fail, and of its result."""
    return call(name, "ok", bad, result=result, **expected)


def mount(name: str, code: str, place: str, bad: str, *, bound: float = START, **expected: Any) -> Case:
    """Make a case of a server that fails its mount."""

    async def play(stage: Stage) -> None:
        await stage.provoke(stage.mount(server(stage, place, bad), expected.get("deadline") or 60))
        await stage.mount(server(stage, *BEHAVE))

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def command(name: str, *words: str, **expected: Any) -> Case:
    """Make a case of a command that starts no server."""

    async def play(stage: Stage) -> None:
        (stage.folder / "not-executable").write_text("#!/bin/sh\n")
        await stage.provoke(stage.mount(started(stage, list(words))))
        await stage.mount(server(stage, *BEHAVE))

    return Case(name=name, code="unreachable", bound=START, play=play, **expected)


def ends(name: str, stubborn: str, *, bound: float) -> Case:
    """Make a case of a server that is unmounted, and of what it has started."""

    async def play(stage: Stage) -> None:
        await stage.mount(server(stage, "bad", f"{stubborn}\nreply({{}})\nwhile True: time.sleep(600)"))
        assert await stage.call("bad") == {}
        await stage.provoke(stage.session.unmount(MODULE))
        wait_for_end(stage.mark)
        await stage.mount(server(stage, *BEHAVE))

    return Case(name=name, code="ok", bound=bound, play=play, result={"removed": [MODULE]})


@case("5,000 notifications of progress at once", "ok", 4.0, result=[{"progress": n} for n in range(5_000)])
async def much_progress(stage: Stage) -> None:
    await stage.mount(server(stage, "bad", PROGRESS))
    stream = stage.session.stream(MODULE, "bad", {})

    async def read() -> list[Any]:
        return [chunk async for chunk in stream]

    await stage.provoke(read())
    assert structured(await stage.note(stream.result())) == {}
    assert stream.dropped == 0


@case("stops reading while 4 MB are written", "timeout", 0.05, deadline=0.3)
async def unread(stage: Stage) -> None:
    await stage.mount(server(stage, "bad", "reply({}); time.sleep(600)"))
    assert await stage.call("bad") == {}
    await stage.provoke(stage.call("good", {"text": "x" * 4_000_000}, timeout=0.3))


@case("the host killed with SIGKILL", "ok", 1.0)
async def killed_host(stage: Stage) -> None:
    """Kill a kernel whose server is deaf and has children everywhere, and wait for the end of all of them."""
    stubborn = f"{DEAF}\n{EVERYWHERE}reply({{}})\ntime.sleep(600)"
    descriptor = server(stage, "bad", stubborn)
    told = {"name": "m", "kind": "tool", "capabilities": [], "transport": dict(descriptor.transport)}
    with subprocess.Popen([sys.executable, "-c", HOST, json.dumps(told)], stdout=subprocess.PIPE) as host:
        try:
            assert host.stdout is not None
            assert b"structuredContent" in host.stdout.readline()
            wait_for_start(stage.mark, 4)
        finally:
            host.kill()
        await stage.provoke(asyncio.to_thread(wait_for_end, stage.mark))
    await stage.mount(server(stage, *BEHAVE))


EVERYWHERE = f"{CHILD}\n{OWN_SESSION}\n{DOUBLE_FORKED}\n"
PROGRESS = r"""
token = request["params"]["_meta"]["progressToken"]
for n in range(5000):
    params = {"progressToken": token, "progress": n}
    out(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}) + "\n")
reply({})
"""
NOISE = r"""
out('a banner\n\n[1, 2]\n{}\nDEBUG: 7\n')
reply({"x": 1})
"""
IDS = r"""
out('{"jsonrpc":"2.0","id":999,"result":{}}\n{"jsonrpc":"2.0","id":null,"result":{}}\n{"jsonrpc":"2.0","id":7.5}\n')
reply({"x": "mine"})
reply({"x": "duplicate"})
"""
SEPARATORS = r"""
text = '{"jsonrpc":"2.0","id":%d,"result":{"content":[],"structuredContent":{"x":"\u2028\u2029\u0085"}}}\r\n'
for byte in (text % request['id']).encode(): out(bytes([byte]))
"""
DEEP = "line('\"result\":' + '[' * 50000 + ']' * 50000 + '}')"
HALF = 'out(\'{"jsonrpc":"2.0","id":\' + str(request[\'id\']) + \',"result":{"con\')'

CASES = [
    command("command missing", "no-such-command", details={"command": ["no-such-command"]}, says="No such file"),
    command("command not executable", "./not-executable", says="Permission denied"),
    command("command is a folder", "./", says="Permission denied"),
    command("exits at start", "sh", "-c", "echo why >&2; exit 3", details={"exit_code": 3, "stderr": "why\n"}),
    mount("handshake that hangs", "timeout", "initialize", "hear()", deadline=0.5, bound=0.05),
    mount("exits in the handshake", "unreachable", "initialize", "os._exit(4)", details={"exit_code": 4}),
    mount("a handshake that is none", "internal", "initialize", "answer({'x': 1})", says="the handshake"),
    mount("health that hangs", "timeout", "ping", "hear()", deadline=0.5, bound=0.05),
    mount("exits in health", "unreachable", "ping", "os._exit(4)", details={"exit_code": 4}),
    mount("describe that hangs", "timeout", "tools/list", "hear()", deadline=0.5, bound=0.05),
    mount("describe that is no description", "internal", "tools/list", "answer({})", says="tools/list"),
    call("exit in mid-call", "unreachable", EXIT, says="exit code 7", details={"exit_code": 7, "stderr": "why"}),
    call("SIGKILL in mid-call", "unreachable", KILL, says="killed by SIGKILL", details={"signal": "SIGKILL"}),
    call("half a line, then exit", "unreachable", f"{HALF}; os._exit(0)", details={"exit_code": 0}),
    call("half a line, then silence", "timeout", f"{HALF}; hear(); hear()", deadline=0.2, bound=0.05),
    call("no reply", "timeout", "say('a hint')", deadline=0.2, bound=0.05, details={"stderr": "a hint"}),
    call("late reply", "timeout", LATE.replace("'late'", "{}"), deadline=0.2, bound=0.05),
    fine("banners and noise lines", NOISE, {"x": 1}, logged={"module:noise": {"count": 4, "first": "a banner"}}),
    call("noise glued to JSON", "internal", "out('debug'); reply({})", siblings=2, says="malformed"),
    call("JSON glued to JSON", "internal", "line('\"result\":{}}{}')", siblings=2, says="malformed"),
    call("invalid UTF-8", "internal", 'line(b\'"result":{"x":"\\xff"}}\')', siblings=2, says="utf-8"),
    call("NaN", "internal", 'line(\'"result":{"x":NaN}}\')', siblings=2, says="invalid character"),
    call("no shape", "internal", "line('\"more\":1}')", siblings=2, says="expected a method, or either a result or an"),
    call("a result that is no object", "internal", "answer([])", siblings=2, says="a result that is an object"),
    call("a result that is none of a tool", "internal", "answer({})", siblings=2, says="the server broke its contract"),
    call("error that is text", "internal", 'line(\'"error":"x"}\')', siblings=2, says="an error with its code"),
    fine(
        "unknown, duplicate and null ids",
        IDS,
        {"x": "mine"},
        logged={"module:noise": {"count": 3, "first": '{"jsonrpc":"2.0","id":999,"result":{}}'}},
    ),
    call("50,000-deep JSON", "internal", DEEP, bound=1.0, siblings=2, says="deep"),
    fine("U+2028, CRLF, one byte at a time", SEPARATORS, {"x": "\u2028\u2029\u0085"}),
    fine("50 MB of stderr", STDERR + "reply({})", {}, bound=2.0),
    call(
        "50 MB of stderr, then exit", "unreachable", STDERR + "os._exit(1)", bound=2.0, details={"stderr": "the cause"}
    ),
    fine("32 MB in one line", "reply({'x': 'x' * 32_000_000})", {"x": "x" * 32_000_000}, bound=1.0),
    call("a line over the limit", "internal", "reply('x' * 33_554_432)", bound=1.0, details={"limit": 33_554_432}),
    call(
        "a line without end",
        "internal",
        "while True: out(b'x' * 65536)",
        bound=1.0,
        limits={"message_bytes": 1_000_000},
        says="a message of more than 1000000 bytes (limits.message_bytes)",
        details={"limit": 1_000_000},
        memory=8_000_000,
    ),
    call("stdout closed while alive", "unreachable", "os.close(1); hear()", details={"signal": "SIGKILL"}),
    call("stdin closed while alive", "timeout", "os.close(0); time.sleep(600)", deadline=0.2, bound=0.05),
    unread,
    much_progress,
    ends("ignores the end of input", "", bound=1.2),
    ends("ignores the end of input and SIGTERM", DEAF, bound=1.7),
    ends("children everywhere, unmounted", EVERYWHERE, bound=1.2),
    call("children everywhere, exits", "unreachable", EVERYWHERE + EXIT, details={"exit_code": 7}),
    call("children everywhere, killed", "timeout", EVERYWHERE + SILENCE + "; hear()", deadline=0.2, bound=0.05),
    killed_host,
]
