"""The faults of STDIO modules: each a real process that misbehaves, its code, and how soon the caller knows.

Owns the cases. What is asserted of each of them, beyond its row, is in ``stage``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.conftest import MODULES
from tests.faults.case import Case
from tests.faults.stage import MARK, MODULE, wait_for_end, wait_for_start

from amplifier_core import ModuleDescriptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.stage import Stage

AT_ONCE = 0.1
"""Seconds within which a caller is to know of what ended a call."""

BEHAVE = ("never", "pass")


def stdio(stage: Stage, place: str, code: str, **fields: Any) -> ModuleDescriptor:
    """Describe tests/modules/misbehaving.py, which runs ``code`` at ``place``."""
    program = str(MODULES / "misbehaving.py")
    return started(stage, [sys.executable, "-S", program, "m", place, code], **fields)


def started(stage: Stage, command: list[str], **fields: Any) -> ModuleDescriptor:
    """Describe a module by its command line."""
    transport = {"type": "stdio", "command": command, "env": {MARK: stage.mark}}
    told = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport, **fields}
    return ModuleDescriptor.from_mapping(told, base=stage.folder)


def call(
    name: str, code: str, bad: str, *, bound: float = AT_ONCE, siblings: int = 0, limits: Any = None, **expected: Any
) -> Case:
    """Make a case of an invocation, ``bad``, and of others of the same process that must not suffer."""

    async def play(stage: Stage) -> None:
        await stage.mount(stdio(stage, "bad", bad, limits=limits or {}))
        await stage.bad(siblings=siblings)

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def fine(name: str, bad: str, result: Any, **expected: Any) -> Case:
    """Make a case of an invocation that may not fail, and of its result."""
    return call(name, "ok", bad, result=result, **expected)


def mount(name: str, code: str, place: str, bad: str, *, bound: float = 0.5, **expected: Any) -> Case:
    """Make a case of a module that fails its mount; the bound has the start of an interpreter in it."""

    async def play(stage: Stage) -> None:
        await stage.provoke(stage.mount(stdio(stage, place, bad), expected.get("deadline") or 60))
        await stage.mount(stdio(stage, *BEHAVE))

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def command(name: str, *words: str, **expected: Any) -> Case:
    """Make a case of a command that starts no module."""

    async def play(stage: Stage) -> None:
        (stage.folder / "not-executable").write_text("#!/bin/sh\n")
        await stage.provoke(stage.mount(started(stage, list(words))))
        await stage.mount(stdio(stage, *BEHAVE))

    return Case(name=name, code="unreachable", bound=AT_ONCE, play=play, **expected)


def case(name: str, code: str, bound: float, **expected: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Case]:
    """Make a case of a function that plays it."""
    return lambda play: Case(name=name, code=code, bound=bound, play=play, **expected)


@case("20,000 chunks at once", "ok", 2.0, result=list(range(20_000)))
async def many_chunks(stage: Stage) -> None:
    await stage.mount(stdio(stage, "bad", CHUNKS))
    stream = stage.session.stream(MODULE, "bad", {})

    async def read() -> list[Any]:
        return [chunk async for chunk in stream]

    await stage.provoke(read())
    assert await stage.note(stream.result()) == "whole"
    assert stream.dropped == 0


@case("stops reading while 4 MB are written", "timeout", 0.05, deadline=0.2)
async def unread(stage: Stage) -> None:
    await stage.mount(stdio(stage, "describe", "behave(); time.sleep(600)"))
    await stage.provoke(stage.call("good", {"text": "x" * 4_000_000}, timeout=0.2))


def ends(name: str, stubborn: str, *, bound: float) -> Case:
    """Make a case of a module that is unmounted, and of what it has started."""

    async def play(stage: Stage) -> None:
        await stage.mount(stdio(stage, "bad", f"{stubborn}\nreply(1)\nwhile True: time.sleep(600)"))
        assert await stage.call("bad") == 1
        await stage.provoke(stage.session.unmount(MODULE))
        wait_for_end(stage.mark)
        await stage.mount(stdio(stage, *BEHAVE))

    return Case(name=name, code="ok", bound=bound, play=play, result={"removed": [MODULE]})


DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
CHILD = "subprocess.Popen(SLEEPER)"
OWN_SESSION = "subprocess.Popen(SLEEPER, start_new_session=True)"
DOUBLE_FORKED = """
if not os.fork():
    os.setsid()
    if not os.fork(): os.execvp(SLEEPER[0], SLEEPER)
    os._exit(0)
os.wait()
"""
HOST = """
import asyncio, json, sys
from amplifier_core import Kernel, Plan
async def main():
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan("be killed", {}))
        await session.mount("/mnt/tools", json.loads(sys.argv[1]), trusted=True)
        print(await session.invoke("/mnt/tools/m", "bad", {}), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@case("the host killed with SIGKILL", "ok", 1.0)
async def killed_host(stage: Stage) -> None:
    """Kill a kernel whose module is deaf and has children everywhere, and wait for the end of all of them."""
    stubborn = f"{DEAF}\n{CHILD}\n{OWN_SESSION}\n{DOUBLE_FORKED}\nreply(1)\ntime.sleep(600)"
    descriptor = stdio(stage, "bad", stubborn)
    told = {"name": "m", "kind": "tool", "capabilities": [], "transport": dict(descriptor.transport)}
    with subprocess.Popen([sys.executable, "-c", HOST, json.dumps(told)], stdout=subprocess.PIPE) as host:
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == b"1\n"
            wait_for_start(stage.mark, 4)
        finally:
            host.kill()
        await stage.provoke(asyncio.to_thread(wait_for_end, stage.mark))
    await stage.mount(stdio(stage, *BEHAVE))


SILENCE = "hear(); hear()"  # the cancel, and then nothing
EXIT = "say('why'); os._exit(7)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
CHUNKS = r"""
for n in range(20000): line('"chunk":%d}' % n)
reply('whole')
"""
NOISE = r"""
out('a banner\n\n[1, 2]\n{}\nDEBUG: 7\n')
reply(1)
"""
IDS = r"""
out('{"id":"r999","ok":true,"result":"unknown"}\n{"id":null,"ok":true,"result":"null"}\n{"id":7,"ok":true}\n')
reply('mine')
reply('duplicate')
"""
LATE = r"""
while b'cancel' not in hear(): pass
reply('late')
"""
SEPARATORS = r"""
for byte in ('{"id":"%s","ok":true,"result":"\u2028\u2029\u0085"}\r\n' % request['id']).encode(): out(bytes([byte]))
"""
DEEP = "line('\"ok\":true,\"result\":' + '[' * 50000 + ']' * 50000 + '}')"
STDERR = "for _ in range(50): say('x' * 1048576)\nsay('the cause')\n"
LIE = "DESCRIPTION['{}'] = {!r}\nbehave()"

CASES = [
    command("command missing", "no-such-command", details={"command": ["no-such-command"]}, says="No such file"),
    command("command not executable", "./not-executable", says="Permission denied"),
    command("command is a folder", "./", says="Permission denied"),
    command("exits at start", "sh", "-c", "echo why >&2; exit 3", details={"exit_code": 3, "stderr": "why\n"}),
    mount("health that hangs", "timeout", "health", "hear()", deadline=0.2, bound=0.05),
    mount("exits in health", "unreachable", "health", "os._exit(4)", details={"exit_code": 4}),
    mount("is not well", "unreachable", "health", "reply({'status': 'starting'})", says="starting"),
    mount("describe that hangs", "timeout", "describe", "hear()", deadline=0.2, bound=0.05),
    mount("describe that lies about its name", "internal", "describe", LIE.format("name", "n"), says="name"),
    mount("describe that lies about its kind", "internal", "describe", LIE.format("kind", "hook"), says="kind"),
    mount(
        "describe that claims more", "forbidden", "describe", LIE.format("capabilities", ["sys:emit"]), says="sys:emit"
    ),
    mount("describe that is no description", "internal", "describe", "reply([])", says="describe"),
    call("exit in mid-call", "unreachable", EXIT, says="exit code 7", details={"exit_code": 7, "stderr": "why"}),
    call("SIGKILL in mid-call", "unreachable", KILL, says="killed by SIGKILL", details={"signal": "SIGKILL"}),
    call(
        "half a line, then exit",
        "unreachable",
        "out('{\"id\":\"' + request['id'] + '\",\"ok\":tr'); os._exit(0)",
        details={"exit_code": 0},
    ),
    call(
        "half a line, then silence",
        "timeout",
        "out('{\"id\":\"' + request['id'] + '\",\"ok\":tr'); hear()",
        deadline=0.2,
        bound=0.05,
    ),
    call("no reply", "timeout", "say('a hint')", deadline=0.2, bound=0.05, details={"stderr": "a hint"}),
    call("late reply", "timeout", LATE, deadline=0.2, bound=0.05),
    fine("banners and noise lines", NOISE, 1, logged={"module:noise": {"count": 4, "first": "a banner"}}),
    call("noise glued to JSON", "internal", "out('debug'); reply(1)", siblings=2, says="malformed"),
    call("JSON glued to JSON", "internal", 'line(\'"ok":true,"result":1}{}\')', siblings=2, says="malformed"),
    call("invalid UTF-8", "internal", 'line(b\'"ok":true,"result":"\\xff"}\')', siblings=2, says="utf-8"),
    call("NaN", "internal", 'line(\'"ok":true,"result":NaN}\')', siblings=2, says="invalid character"),
    call("no shape", "internal", "line('\"more\":1}')", siblings=2, says="none of the three shapes"),
    call("a reply without its result", "internal", "line('\"ok\":true}')", siblings=2, says="none of the three shapes"),
    call("ok that is a number", "internal", 'line(\'"ok":1,"result":1}\')', siblings=2, says="Expected `bool"),
    call("error that is text", "internal", 'line(\'"ok":false,"error":"x"}\')', siblings=2, says="Expected `object"),
    fine(
        "unknown, duplicate and null ids",
        IDS,
        "mine",
        logged={"module:noise": {"count": 4, "first": '{"id":"r999","ok":true,"result":"unknown"}'}},
    ),
    call("50,000-deep JSON", "internal", DEEP, bound=1.0, siblings=2, says="deep"),
    fine("U+2028, CRLF, one byte at a time", SEPARATORS, "\u2028\u2029\u0085"),
    fine("50 MB of stderr", STDERR + "reply(1)", 1, bound=2.0),
    call(
        "50 MB of stderr, then exit", "unreachable", STDERR + "os._exit(1)", bound=2.0, details={"stderr": "the cause"}
    ),
    fine("32 MB in one line", "reply('x' * 32_000_000)", "x" * 32_000_000, bound=1.0),
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
    many_chunks,
    ends("ignores the end of input", "", bound=1.2),
    ends("ignores the end of input and SIGTERM", DEAF, bound=1.7),
    ends("children in its group, unmounted", CHILD, bound=1.2),
    ends("children in sessions of their own, unmounted", OWN_SESSION, bound=1.2),
    ends("children forked twice, unmounted", DOUBLE_FORKED, bound=1.2),
    call("children in its group, exits", "unreachable", f"{CHILD}\n{EXIT}", details={"exit_code": 7}),
    call("children in sessions of their own, exits", "unreachable", f"{OWN_SESSION}\n{EXIT}", details={"exit_code": 7}),
    call("children forked twice, exits", "unreachable", f"{DOUBLE_FORKED}\n{EXIT}", details={"exit_code": 7}),
    call("children in its group, killed", "timeout", f"{CHILD}\n{SILENCE}", deadline=0.2, bound=0.05),
    call(
        "children in sessions of their own, killed",
        "timeout",
        f"{OWN_SESSION}\n{SILENCE}",
        deadline=0.2,
        bound=0.05,
    ),
    call("children forked twice, killed", "timeout", f"{DOUBLE_FORKED}\n{SILENCE}", deadline=0.2, bound=0.05),
    killed_host,
]
