"""What the tests of NATS share: a server, workers in this process and in others, and connections to them."""

import asyncio

import pytest
from tests.conftest import missing_here
from tests.nats_transport.servers import Server, Worker, descriptor, local, program

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Host
from amplifier_core.hosting import HostedModule
from amplifier_core.testing import open_connection
from amplifier_transport_inproc import descriptor_of
from amplifier_transport_nats._place import Place
from amplifier_transport_nats._worker.service import Service
from amplifier_transport_nats._worker.worker import Worker as Serving


@pytest.fixture(scope="session")
def nats(tmp_path_factory):
    """Run a server for all tests that need no other."""
    if program() is None:
        missing_here("nats-server is not installed")
    server = Server(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path):
    """Give a server of the test's own, which has not started: ``server().start()``."""
    servers = []
    if program() is None:
        missing_here("nats-server is not installed")

    def make(**options):
        folder = tmp_path / f"nats-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, **options))
        return servers[-1]

    yield make
    for each in servers:
        each.stop()


@pytest.fixture
def subject(request):
    """Give a subject of the test's own."""
    return "".join(c if c.isalnum() else "_" for c in request.node.name)[:100]


@pytest.fixture
def work(tmp_path, subject):
    """Start a worker, which is ready: ``work(server, local("echo.py"))``."""
    workers = []

    def start(server, fields=None, *options, ready="serving", **more):
        fields = fields or local("echo.py")
        workers.append(Worker(tmp_path, server, fields, "--trusted", *options, **{"subject": subject, **more}))
        return workers[-1].wait(ready) if ready else workers[-1]

    yield start
    for each in workers:
        each.terminate()
    for each in workers:
        each.end(10)


@pytest.fixture
async def serve(later, subject):
    """Serve an object from this process: ``await serve(server, module)`` gives what ends that.

    A process for each would take seconds.
    """

    async def start(server, module, *, subject=subject, seconds=5, place=None):
        described = module if isinstance(module, ModuleDescriptor) else descriptor_of(module)
        hosted = HostedModule(described, trusted=True)
        await later.enter_async_context(hosted)
        service = Service(described.name, "1.2.3", subject, {})
        place = place or Place(servers=(server.address,))
        worker = Serving(hosted, service, place, subject, described.message_bytes)
        await worker.start()
        stop = asyncio.Event()
        serving = asyncio.create_task(worker.serve(stop))

        async def end():
            stop.set()
            await serving
            await worker.drain(seconds)

        later.push_async_callback(end)
        setattr(end, "worker", worker)  # noqa: B010 - for the type checker
        return end

    return start


@pytest.fixture
async def connect(later, subject):
    """Open and start connections that are closed after the test, with one host."""
    host = Host()
    later.push_async_callback(host.close)

    async def start(server, *, host=host, notify=None, **fields):
        connection = open_connection(descriptor(server, **{"subject": subject, **fields}), host, notify)
        later.push_async_callback(connection.close)
        await connection.start((), None)
        return connection

    return start
