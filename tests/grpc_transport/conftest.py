"""What the tests of gRPC share: servers, and connections to them."""

import asyncio
import time

import grpc.aio
import pytest
from tests.conftest import children, descriptors
from tests.grpc_transport.servers import Server, descriptor

from amplifier_transport_grpc import open_transport


@pytest.fixture(scope="session", autouse=True)
def grpc_is_up():
    """Let gRPC open what it keeps open for its event loops, before a test counts."""

    async def begin():
        grpc.aio.init_grpc_aio()

    asyncio.run(begin())


@pytest.fixture(autouse=True)
def nothing_is_left(grpc_is_up):
    """Fail a test that leaves a process or a socket. gRPC keeps a few pollers open for the whole process."""
    before = children(), descriptors().keys()
    yield
    deadline = time.monotonic() + 5
    while left := {fd: name for fd, name in descriptors().items() if fd not in before[1] and "anon_inode" not in name}:
        assert time.monotonic() < deadline, f"open files are left: {left}"
        time.sleep(0.01)  # a thread of gRPC's closes sockets
    assert children() <= before[0], "child processes are left"


@pytest.fixture
async def serve():
    """Start a server for the length of a test: ``await serve(invoke=…)``."""
    opened = []

    async def start(*, tls=None, port=0, address=None, options=(), **answers):
        server = Server(**answers)
        opened.append(server)
        await server.start(tls=tls, port=port, address=address, options=options)
        return server

    yield start
    for server in opened:
        await server.stop()


@pytest.fixture
async def connect():
    """Open and start connections that are closed after the test: ``await connect(server)``."""
    opened = []

    async def start(server, **transport):
        connection = open_transport(descriptor(getattr(server, "target", server), **transport))
        opened.append(connection)
        await connection.start((), None)
        return connection

    yield start
    for connection in opened:
        await connection.close()
