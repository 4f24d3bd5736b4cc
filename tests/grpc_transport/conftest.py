"""What the tests of gRPC share: servers, and connections to them."""

import pytest
from tests.grpc_transport.raw import RawServer
from tests.grpc_transport.servers import Server, descriptor

from amplifier_transport_grpc import open_transport


@pytest.fixture(autouse=True)
def _grpc(grpc_is_up):
    """Let gRPC be up before each test."""


@pytest.fixture
def serve(later):
    """Start a server for the length of a test: ``await serve(invoke=…)``."""

    async def start(*, tls=None, port=0, address=None, options=(), **answers):
        server = Server(**answers)
        await server.start(tls=tls, port=port, address=address, options=options)
        later.push_async_callback(server.stop)
        return server

    return start


@pytest.fixture
def raw(later):
    """Start a server that answers an invocation with frames of the test's own."""

    async def start(invoke):
        server = RawServer(invoke)
        await server.start()
        later.push_async_callback(server.stop)
        return server

    return start


@pytest.fixture
def connect(later):
    """Open and start connections that are closed after the test: ``await connect(server)``."""

    async def start(server, **transport):
        connection = open_transport(descriptor(getattr(server, "target", server), **transport))
        later.push_async_callback(connection.close)
        await connection.start((), None)
        return connection

    return start
