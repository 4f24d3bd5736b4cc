"""What the embedder does with its own signals: modules start with the default ones, and their ends are told truly.

Each test has a program of its own, since signals belong to a whole process.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.conftest import MODULES, missing_here

if not hasattr(signal, "pthread_sigmask"):
    pytest.skip("there are no masks of signals on this system", allow_module_level=True)

PROGRAM = r"""
import asyncio, json, os, signal, sys, threading
from amplifier_core import Kernel, KernelError, Plan
before, loop, program, place, code = sys.argv[1:]
exec(before)

class Blind(asyncio.SelectorEventLoop):
    add_reader = asyncio.AbstractEventLoop.add_reader
    remove_reader = asyncio.AbstractEventLoop.remove_reader
    add_writer = asyncio.AbstractEventLoop.add_writer
    remove_writer = asyncio.AbstractEventLoop.remove_writer

async def main():
    async with Kernel(event_log=False, isolation=False) as kernel:
        session = await kernel.session.create(Plan("x"))
        command = [sys.executable, program, "m", place, code]
        module = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "command": command}}
        await session.mount("/mnt/tools", module, trusted=True)
        try:
            return await session.invoke("/mnt/tools/m", place, {}, timeout=20)
        except KernelError as error:
            return {"code": error.code, "message": error.message, **error.details}

with asyncio.Runner(loop_factory=Blind if loop == "threads" else asyncio.SelectorEventLoop) as runner:
    print(json.dumps(runner.run(main())))
"""
SIGNALS = r"""
import pathlib
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
told = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
reply({name: int(told[name], 16) & 0x7FFFFFFF for name in ("SigBlk", "SigIgn")})  # without those of the C library
"""
REAP = """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, reap)
"""
IGNORE = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
BEFORE = {
    "nothing": "pass",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})",
    "ignored": "for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD): signal.signal(each, signal.SIG_IGN)",
    "handled": "signal.signal(signal.SIGTERM, lambda *_: None)",
    "both, beside threads": IGNORE
    + "; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    + "; threading.Thread(target=threading.Event().wait, daemon=True).start()",
}


@pytest.fixture
def run(request):
    """Run a program that treats its signals in some way; give what its module's op told."""
    loop = "threads" if "threads" in request.node.name.partition("[")[2] else "watched"

    def start(before, place, code):
        command = [
            sys.executable,
            "-W",
            "error",
            "-c",
            PROGRAM,
            before,
            loop,
            str(MODULES / "misbehaving.py"),
            place,
            code,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return start


@pytest.mark.parametrize("before", BEFORE)
async def test_a_module_starts_with_no_signal_blocked_or_ignored(run, before):
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1  # those that Python ignores
    assert run(BEFORE[before], "look", SIGNALS) == {"SigBlk": 0, "SigIgn": pythons}


ENDS: dict = {
    "os._exit(3)": {"exit_code": 3},
    "os._exit(0)": {"exit_code": 0},
    "os.kill(os.getpid(), 11)": {"signal": "SIGSEGV"},
}


@pytest.mark.parametrize("before", [IGNORE, REAP], ids=["ignores", "reaps"])
@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_a_module_is_told_as_it_was_or_not_at_all(run, before, end):
    told = run(before, "end", end)
    assert told["code"] == "unreachable"
    how = {name: told[name] for name in ("exit_code", "signal") if name in told}
    assert how in ({}, ENDS[end])
    if not how:
        assert "its exit code is lost: this program ignores SIGCHLD, or waits for every child" in told["message"]
    if not how and tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
        missing_here("this system does not tell of what somebody else has reaped")


@pytest.mark.parametrize("before", [IGNORE, REAP], ids=["ignores", "reaps"])
async def test_a_module_sees_how_its_own_children_end(run, before):
    code = "reply(subprocess.run([sys.executable, '-c', 'raise SystemExit(5)']).returncode)"
    assert run(before, "start a child", code) == 5
