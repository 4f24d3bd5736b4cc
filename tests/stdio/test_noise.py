"""Modules that write on and on: what is no protocol ends them, and what is gives everybody else a turn."""

import asyncio
import sys
import time

import pytest
from tests.conftest import exits
from tests.gap import LoopGap

from amplifier_core import Internal, ModuleDescriptor

MODULE = """
import fcntl, json, os, sys, threading
def reply(request, result):
    os.write(1, json.dumps({"id": request["id"], "ok": True, "result": result}).encode() + b"\\n")
def flood(line, fd=1, count=None):
    piece = line * max(1, 65536 // len(line))
    while count is None or count > 0:
        os.write(fd, piece)
        count = count and count - len(piece) // len(line)
for text in sys.stdin:
    request = json.loads(text)
    if request.get("method") == "health":
        reply(request, {"status": "ok"})
    elif request.get("method") == "describe":
        reply(request, {"name": sys.argv[1], "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}})
    elif request.get("method") == "invoke":
        op, args = request["params"]["op"], request["params"]["args"]
        line = args.get("line", "").encode()
        if op == "idle":
            reply(request, op)
            flood(line)
        elif op == "errors":
            threading.Thread(target=flood, args=(line, 2), daemon=True).start()
        elif op == "busy":
            flood(line)
        elif op == "some":
            flood(line, count=args["count"])
        elif op == "chunks":
            flood(json.dumps({"id": request["id"], "chunk": 0}).encode() + b"\\n", count=args["count"])
        elif op == "last":
            fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
            flood(json.dumps({"id": request["id"], "chunk": 0}).encode() + b"\\n", count=20_000)
            reply(request, op)
            os._exit(0)
        reply(request, op)
"""
M, OTHER = "/mnt/tools/loud", "/mnt/tools/quiet"
LINES = {"protocol": "{}\n", "blank": "\n", "spaces": " " * 999 + "\n", "long": "x" * 1_000_000 + "\n"}


@pytest.fixture
async def loud(session, tmp_path):
    """A session with two modules of the same program."""
    file = tmp_path / "loud.py"
    file.write_text(MODULE)
    for name in ("loud", "quiet"):
        transport = {"type": "stdio", "command": [sys.executable, str(file), name]}
        fields = {"name": name, "kind": "tool", "capabilities": [], "transport": transport}
        await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(fields), trusted=True)
    return session


GAP = 0.5  # seconds: twice the bound, since other tests run at the same time


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_an_idle_module_that_writes_for_ever_is_killed(loud, events, line):
    async with LoopGap() as gap:
        await loud.invoke(M, "idle", {"line": line})
        (exited,) = await exits(events)
    assert gap.worst < GAP
    assert exited["signal"] == "SIGKILL"
    assert len(events("module:noise")) == (not line.isspace())
    assert await loud.invoke(M, "fine", {}) == "fine"


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_noise_in_place_of_an_answer_fails_the_request(loud, line):
    async with LoopGap() as gap:
        with pytest.raises(Internal, match="broke its contract: it wrote more than 100000 lines or 8388608 bytes"):
            await loud.invoke(M, "busy", {"line": line})
    assert gap.worst < GAP
    assert await loud.invoke(M, "fine", {}) == "fine"


async def test_noise_before_an_answer_is_not_held_against_the_next_one(loud, events):
    for _ in range(3):
        assert await loud.invoke(M, "some", {"line": "debug: fine\n", "count": 40_000}) == "some"
    assert not events("module:exit")


async def test_chunks_without_end_leave_the_loop_to_others(loud):
    async with LoopGap() as gap:
        flood = asyncio.create_task(loud.invoke(M, "chunks", {"count": 100_000}))
        while not flood.done():
            assert await loud.invoke(OTHER, "fine", {}) == "fine"
    assert gap.worst < GAP
    assert await flood == "chunks"


async def test_what_an_ended_module_left_in_its_pipe_is_taken_in_turns(loud):
    async with LoopGap() as gap:
        assert await loud.invoke(M, "last", {}) == "last"
    assert gap.worst < GAP


async def test_errors_without_end_cost_little_time(loud):
    """Nobody waits for stderr, so it is read with pauses."""
    await loud.invoke(M, "errors", {"line": "x" * 65536})
    began = time.process_time()
    for _ in range(20):
        assert await loud.invoke(OTHER, "fine", {}) == "fine"
        await asyncio.sleep(0.05)
    assert time.process_time() - began < 0.5
    assert await loud.invoke(M, "fine", {}) == "fine"
