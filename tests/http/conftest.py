"""What the tests of HTTP share: servers, connections to them, and modules in processes of their own."""

import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from tests.http.raw import Server, certified, describe_remote

from amplifier_transport_http import open_transport

ROOT = Path(__file__).parents[2]


@pytest.fixture
def serve(later):
    """Start a server for the length of a test: ``await serve(answer)``."""

    async def start(answer, **options):
        server = Server(answer)
        await server.start(**options)
        later.push_async_callback(server.stop)
        return server

    return start


@pytest.fixture
def in_a_thread():
    """Serve each of some connections with a callable of its own, beside the loop; give the port."""
    threads = []

    def start(*serve_one):
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(60)

        def work():
            with listener:
                for one in serve_one:
                    peer, _ = listener.accept()
                    peer.settimeout(60)
                    with closing(peer):
                        one(peer)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return listener.getsockname()[1]

    yield start
    for thread in threads:
        thread.join(60)


@pytest.fixture
def connect(later):
    """Open and start connections that are closed after the test: ``await connect(server)``."""

    async def start(server, **fields):
        connection = open_transport(describe_remote(getattr(server, "url", server), **fields))
        later.push_async_callback(connection.close)
        await connection.start((), None)
        return connection

    return start


@pytest.fixture
def program():
    """Run a program that says where it listens, and give its URL; it ends with its stdin."""
    running = []

    def start(*command):
        process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout
        return process.stdout.readline().decode().split()[-1]

    yield start
    for process in running:
        process.communicate(timeout=10)


@pytest.fixture
def echo_module(program):
    """Start tests/modules/echo_http.py and describe it."""

    def start(**fields):
        name = fields.get("name", "echo")
        url = program(sys.executable, ROOT / "tests" / "modules" / "echo_http.py", "--name", name)
        return describe_remote(url, **{"name": name, **fields})

    return start


@pytest.fixture
def approve():
    """Allow everything, as a policy hook."""

    async def decide(_event):
        return {"decision": "allow"}

    return decide


@pytest.fixture
def authority(tmp_path):
    """A certificate authority of the test's own: its PEM file, and the server side's TLS for 127.0.0.1."""
    return certified(tmp_path)
