"""What the tests of gRPC share: servers, and connections to them."""

import pytest
from tests.grpc_transport.servers import Server, descriptor

from amplifier_transport_grpc import open_transport


@pytest.fixture(autouse=True)
def _grpc(grpc_is_up):
    """Let gRPC be up before each test."""


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
