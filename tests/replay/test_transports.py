"""Runs over each transport that is no pipe: they are replayed when their servers are gone."""

import contextlib
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.grpc_transport.servers import Server, descriptor
from tests.http.raw import describe_remote
from tests.inproc.objects import Plain
from tests.mcp_transport.servers import McpServer

from amplifier_core import Kernel, KernelError
from amplifier_transport_inproc import descriptor_of

ECHO = Path(__file__).parents[1] / "modules" / "echo_http.py"


@asynccontextmanager
async def over_http():
    command = [sys.executable, str(ECHO), "--name", "m"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield describe_remote(process.stdout.readline().decode().split()[-1], name="m"), ["echo", "nonesuch"]
        finally:
            process.communicate(timeout=10)


@asynccontextmanager
async def over_grpc():
    server = Server()
    await server.start()
    try:
        yield descriptor(server.target), ["echo"]
    finally:
        await server.stop()


@asynccontextmanager
async def over_mcp():
    server = McpServer()
    await server.start()
    try:
        told = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "mcp", "url": server.url}}
        yield told, ["good", "nonesuch"]
    finally:
        await server.stop()


@asynccontextmanager
async def in_the_process():
    yield descriptor_of(Plain("m")), ["echo", "chunks", "tell"]


@pytest.mark.parametrize("serving", [over_http, over_grpc, over_mcp, in_the_process])
async def test_a_run_over_a_transport_is_replayed_without_it(serving, log, again, grpc_is_up):
    async with serving() as (described, ops), Kernel(event_log=log, isolation=False, recording=True) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.mount("/mnt/tools", described, trusted=True)
        for op in ops:
            with contextlib.suppress(KernelError):  # of what the module does not know
                async with session.stream("/mnt/tools/m", op, {"to": 3, "chunks": [1, 2]}) as stream:
                    _ = [chunk async for chunk in stream]
                await stream.result()
        await session.describe("/mnt/tools/m")
    await again(log)
