"""What a server sends in masses holds neither the loop nor the memory of the kernel, and costs it little."""

import asyncio
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import pytest
from tests.gap import apart
from tests.mcp_transport.servers import PROLOGUE

from amplifier_core import Kernel, ModuleDescriptor, Plan
from amplifier_transport_mcp import open_transport

GAP = 0.25
"""Seconds of CPU."""
GROWTH = 3 * 32 * 2**20
SECONDS = 1.5
BUSY = 0.75
"""Seconds of CPU in SECONDS: what nobody holds back takes all of them."""


class Host:
    def shared(self, make):
        return make()


FLOODS = {
    "pings": "line({'id': f'p{n}', 'method': 'ping'})",
    "pings with long ids": "line({'id': 'p' * 30_000 + str(n), 'method': 'ping'})",
    "large questions": "line({'id': n, 'method': 'sampling/createMessage', 'params': {'x': 'y' * 10**6}})",
    "logs": "line({'method': 'notifications/message', 'params': {'data': n}})",
    "early replies": "line({'id': 1, 'result': {}})",
    "batches": "b'[' + line({'id': n, 'method': 'ping'})[:-1] + b',1' * 1000 + b']\\n'",
}
ANSWER = """
for request in requests():
    reply(request, told("fine"))
    break
"""
FLOOD = """
def line(message):
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\\n"
block = b"".join(MADE for n in range(8))
while True:
    out(block)
"""


async def drown(meters, made):
    """Call a server that answers, and floods from then on; say how it went on."""
    code = f"{PROLOGUE}\n{ANSWER}\n{FLOOD.replace('MADE', made)}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "server.py").write_text(code, "utf-8")
        transport = {"type": "mcp", "command": [sys.executable, str(Path(folder) / "server.py")]}
        fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
        connection = open_transport(ModuleDescriptor.from_mapping(fields), lambda *_: None, cast("Any", Host()))
        await connection.start((), None)
        reply = await connection.request("invoke", b'{"op": "good", "args": {}}')
        async with meters:
            began = time.process_time()
            await asyncio.sleep(SECONDS)
            busy = time.process_time() - began
        await connection.close()
    return reply.ok, busy


@pytest.mark.usefixtures("peak_of_memory")
@pytest.mark.newest
@pytest.mark.parametrize("made", FLOODS.values(), ids=FLOODS)
def test_a_server_that_goes_on_and_on_costs_little(made):
    cost = apart(drown, made)
    answered, busy = cost.said
    assert answered
    assert cost.gap < GAP
    assert cost.growth < GROWTH
    assert busy < BUSY


SIZE = 30_000_000


async def mount_large(meters):
    """Mount a server with a tool whose title has 30 MB."""
    tool = f'TOOLS = [{{"name": "large", "title": "x" * {SIZE}, "inputSchema": {{"type": "object"}}}}]'
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "server.py").write_text(f"{PROLOGUE}\n{tool}\n{ANSWER}", "utf-8")
        transport = {"type": "mcp", "command": [sys.executable, str(Path(folder) / "server.py")]}
        limits = {"message_bytes": GROWTH // 3}
        fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport, "limits": limits}
        async with Kernel(event_log=False, isolation=False) as kernel:
            session = await kernel.session.create(Plan("x"))
            importlib.import_module("amplifier_transport_mcp._sdk")  # the first mount would do it
            async with meters:
                await session.mount("/mnt/tools", fields, trusted=True)
            return len((await session.describe("/mnt/tools/m"))["mcp"]["tools"][0]["title"])


def test_a_large_listing_is_in_memory_twice_at_most(peak_of_memory):
    cost = apart(mount_large)
    assert cost.said == SIZE
    assert cost.growth < 2.5 * SIZE
