"""Where servers are, and are not: addresses, sockets, restarts, and how often a connection is tried."""

import asyncio
import collections
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.grpc_transport.servers import descriptor

from amplifier_core import KernelError, Timeout, Unreachable

ROOT = Path(__file__).parents[2]
PROMPT = 5.0  # seconds, on a machine that is busy
CALLERS = 64


def params(**args):
    return json.dumps({"op": "good", "args": args}).encode()


@pytest.fixture
def need_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        missing_here(f"there is no IPv6: {error}")


async def test_a_server_on_ipv6(serve, connect, need_ipv6):
    server = await serve(address="[::1]:0")
    connection = await connect(f"dns:///[::1]:{server.port}")
    assert (await connection.request("invoke", params(n=1))).result == {"n": 1}


async def test_of_several_addresses_one_that_answers_is_enough(serve, connect, need_ipv6):
    addresses = {each[4][0] for each in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}
    if not {"127.0.0.1", "::1"} <= addresses:
        pytest.skip("localhost has one address here")
    for address in ("127.0.0.1:0", "[::1]:0"):
        server = await serve(address=address)
        connection = await connect(f"dns:///localhost:{server.port}")
        assert (await connection.request("invoke", params(n=1))).result == {"n": 1}


@pytest.mark.parametrize("target", ["dns:///127.0.0.1:1", "dns:///no-such-host.invalid:1", "unix:/no/such/socket"])
async def test_where_nobody_is_the_mount_fails_soon(session, target):
    with pytest.raises(Unreachable):
        await session.mount("/mnt/tools", descriptor(target), timeout=30)


async def test_a_socket_that_is_none_or_not_ours(session, tmp_path):
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "closed"))
        for name in ("file", "closed"):
            with pytest.raises(Unreachable):
                await session.mount("/mnt/tools", descriptor(f"unix:{tmp_path / name}"))
        if os.geteuid():
            closed.listen()
            (tmp_path / "closed").chmod(0)
            with pytest.raises(Unreachable, match="(?i)permission"):
                await session.mount("/mnt/tools", descriptor(f"unix:{tmp_path / 'closed'}"))


async def test_a_server_that_accepts_and_says_nothing_is_given_up_with_the_deadline(session):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"dns:///127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Timeout):
            await session.mount("/mnt/tools", descriptor(target), timeout=0.5)


async def test_a_server_that_hangs_up_is_not_asked_all_the_time(connect):
    async def hang_up(_, writer):
        tried.append(time.monotonic())
        writer.close()

    tried: list[float] = []
    calls = 0
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    connection = await connect(f"dns:///127.0.0.1:{server.sockets[0].getsockname()[1]}")
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        calls += 1
        with pytest.raises(Unreachable):
            await connection.request("invoke", params())
    server.close()
    assert len(tried) <= min(20, calls)


SERVER = """
import asyncio, sys
from tests.grpc_transport.servers import Server

async def main():
    server = Server()
    await server.start(port=int(sys.argv[1]))
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def start():
    """Start an echo server at a port, as a process; give the port and the process."""
    processes = []

    def begin(port=0):
        command = [sys.executable, "-c", SERVER, str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout
        return int(process.stdout.readline()), process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


async def test_a_server_that_is_killed_under_load_and_started_again(session, start):
    """What is in flight fails at once, and so does what comes before the server is back; the rest is answered."""

    async def call():
        while not done.is_set():
            began = time.monotonic()
            try:
                assert await session.invoke("/mnt/tools/m", "good", {"n": 1}, timeout=60) == {"n": 1}
                code = "ok"
            except KernelError as error:
                code = error.code
                await asyncio.sleep(0.01)
            codes[code] += 1
            slowest[code] = max(slowest[code], time.monotonic() - began)

    async def until(code):
        before = codes[code]
        async with asyncio.timeout(30):
            while codes[code] < before + 2 * CALLERS:
                await asyncio.sleep(0.01)

    codes: collections.Counter[str] = collections.Counter()
    slowest: collections.defaultdict[str, float] = collections.defaultdict(float)
    done = asyncio.Event()
    port, process = start()
    await session.mount("/mnt/tools", descriptor(f"dns:///127.0.0.1:{port}"))
    callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
    await until("ok")
    process.kill()
    await until("unreachable")
    await asyncio.to_thread(start, port)
    await until("ok")
    done.set()
    await asyncio.gather(*callers)
    assert set(codes) == {"ok", "unreachable"}
    assert slowest["unreachable"] < PROMPT
    assert slowest["ok"] < PROMPT
