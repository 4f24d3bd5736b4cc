"""Section 3's lines over a socket: what ends a connection, who is told, and what comes after it."""

import asyncio
import contextlib
import json
import os
import signal
import ssl

import pytest
from tests.core.tcp import open_transport

from amplifier_core import Internal, ModuleDescriptor, Unreachable
from amplifier_core.hookspecs import Chunks
from amplifier_transport_stdio import SocketConnection

pytestmark = pytest.mark.asyncio(loop_factories=["watched"])  # sockets need no other way on any loop


class Server:
    """A server on a port, which answers each request as the test says, and counts its connections."""

    def __init__(self, answer):
        self.answer, self.connections, self.writers, self.left = answer, 0, [], asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def connected(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                await self.answer(json.loads(line), writer)
        self.left.set()


def say(writer, request, **message):
    writer.write(json.dumps({"id": request["id"], **message}).encode() + b"\n")


async def echo(request, writer):
    if "id" in request:
        say(writer, request, ok=True, result=request["params"])


class Reports(list):
    def __call__(self, event, data, error=None):
        self.append((event, dict(data), error and str(error)))


async def connect(port, **limits):
    told = {"name": "m", "kind": "tool", "capabilities": ["sys:emit", "x-a:b", "net:connect:*"], "limits": limits}
    descriptor = ModuleDescriptor.from_mapping({**told, "transport": {"type": "tcp", "port": port}})
    reports = Reports()
    connection = open_transport(descriptor, reports)
    return connection, reports


async def started(port, **limits):
    connection, reports = await connect(port, **limits)
    await connection.start((), None)
    return connection, reports


async def test_requests_are_answered_and_reported():
    async with Server(echo) as server:
        connection, reports = await started(server.port)
        assert (await connection.request("health", b'{"n":1}')).result == {"n": 1}
        assert (connection.local, connection.unenforced) == (False, ("net:connect:*",))
        assert connection.clues() == {}
        await connection.close()
        await connection.close()
    place = {"place": f"port {server.port}"}
    assert reports == [
        ("module:start", place, None),
        ("module:exit", place, "unreachable: the module was unmounted"),
    ]
    with pytest.raises(Unreachable, match="the module was unmounted"):
        await connection.request("health", b"{}")


async def test_what_nobody_listens_on_is_unreachable():
    async with Server(echo) as server:
        port = server.port
    connection, reports = await connect(port)
    assert connection.clues() == {}
    with pytest.raises(Unreachable, match=f"port {port}: .*[Cc]onnect"):
        await connection.start((), None)
    await connection.close()
    assert reports == []


async def test_a_connection_that_was_closed_before_it_was_started_does_not_start():
    connection, _ = await connect(1)
    await connection.close()
    with pytest.raises(Unreachable, match="the module was unmounted"):
        await connection.start((), None)


async def test_requests_at_once_after_an_end_share_a_connection():
    async with Server(echo) as server:
        connection, reports = await started(server.port)
        assert (await connection.request("health", b"{}")).ok
        server.writers[0].close()
        while [name for name, *_ in reports] != ["module:start", "module:exit"]:
            await asyncio.sleep(0.001)
        assert reports[1][2] == "unreachable: the module closed the connection"
        replies = await asyncio.gather(*(connection.request("health", b"{}") for _ in range(8)))
        assert all(reply.ok for reply in replies)
        assert server.connections == 2
        await connection.close()


async def test_an_end_fails_what_is_in_flight():
    async def end(request, writer):
        writer.transport.abort()

    async with Server(end) as server:
        connection, _ = await started(server.port)
        for _ in range(2):
            with pytest.raises(Unreachable, match="the module closed the connection"):
                await connection.request("health", b"{}")
        await connection.close()


async def test_noise_is_counted_and_a_line_without_an_end_is_a_clue():
    async def babble(request, writer):
        writer.write(b"hello\n")
        await echo(request, writer)
        writer.write(b"half a li")

    async with Server(babble) as server:
        connection, reports = await started(server.port)
        assert (await connection.request("health", b"{}")).ok
        while "unended" not in connection.clues():
            await asyncio.sleep(0.001)
        assert connection.clues() == {"noise": {"count": 1, "first": "hello"}, "unended": "half a li"}
        await connection.close()
    assert ("module:noise", {"count": 1, "first": "hello"}, None) in reports


async def test_a_message_that_is_too_large_ends_the_connection():
    async def flood(request, writer):
        say(writer, request, ok=True, result="x" * 2000)

    async with Server(flood) as server:
        connection, _ = await started(server.port, message_bytes=1000)
        with pytest.raises(Internal, match="limits.message_bytes"):
            await connection.request("health", b"{}")
        await connection.close()


async def within(seconds, connection):
    async with asyncio.timeout(seconds):
        return await connection.request("invoke", b"{}")


async def test_a_cancel_without_an_answer_ends_the_connection():
    async def hang(request, writer):
        if request["method"] == "health":
            await echo(request, writer)

    async with Server(hang) as server:
        connection, reports = await started(server.port)
        waiting = asyncio.create_task(connection.request("invoke", b"{}", Chunks()))
        beside = asyncio.create_task(within(10, connection))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(Unreachable, match="the connection was closed: it did not answer a cancel within 1 s"):
            await beside
        assert (await connection.request("health", b"{}")).ok
        assert server.connections == 2
        assert "it did not answer a cancel" in reports[1][2]
        await connection.close()


async def test_a_slow_reader_of_chunks_holds_the_server_back():
    async def stream(request, writer):
        for _ in range(300):
            say(writer, request, chunk="x" * 65536)
            await writer.drain()
        say(writer, request, ok=True, result="all")

    async with Server(stream) as server:
        connection, _ = await started(server.port)
        chunks = Chunks()
        reply = asyncio.create_task(connection.request("invoke", b"{}", chunks))
        for _ in range(300):
            assert await chunks.get() == "x" * 65536
        assert (await reply).result == "all"
        assert chunks.dropped == 0
        await connection.close()


async def test_the_cause_of_an_end_is_told():
    """What the system says of it, or what the transport does, where there is no number."""

    class Cut(SocketConnection):
        async def connect(self, protocol):
            _, made = await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", server.port)
            asyncio.get_running_loop().call_soon(made._transport._force_close, error)  # as asyncio does then

    descriptor = ModuleDescriptor.from_mapping(
        {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "tcp"}}
    )
    async with Server(echo) as server:
        for error in (OSError(104, "Connection reset by peer"), ssl.SSLError("bad record")):
            connection = Cut(descriptor, Reports(), "there")
            await connection.start((), None)
            with pytest.raises(Unreachable, match=f"the module closed the connection: .*{error.args[-1]}"):
                await connection.request("health", b"{}")
            await connection.close()


async def test_a_connection_that_has_just_ended_takes_no_request():
    async with Server(echo) as server:
        connection, _ = await started(server.port)
        connection._stream.end()  # it is not told yet
        with pytest.raises(Unreachable, match="the module closed the connection"):
            await connection.request("health", b"{}")
        assert (await connection.request("health", b"{}")).ok
        connection._stream.end()
        assert (await connection.request("health", b"{}")).ok  # one that had answered may be asked again
        assert server.connections == 3
        await connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
async def test_a_connection_ends_though_a_fork_lives_on():
    async with Server(echo) as server:
        connection, _ = await started(server.port)
        assert (await connection.request("health", b"{}")).ok
        if not (pid := os.fork()):
            signal.pause()
            os._exit(1)
        await connection.close()
        await asyncio.wait_for(server.left.wait(), 10)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def test_what_is_closed_in_a_fork_is_the_socket():
    async with Server(echo) as server:
        connection, _ = await started(server.port)
        assert (await connection.request("health", b"{}")).ok
        connection._stream.after_fork()
        await asyncio.wait_for(server.left.wait(), 10)
        await connection.close()


class Slow(SocketConnection):
    """A connection that is greeted once it is there, as by a proxy: ``greet`` does that."""

    def __init__(self, port, reports, greet):
        descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "slow"}}
        super().__init__(ModuleDescriptor.from_mapping(descriptor), reports, "there")
        self._port, self._greet = port, greet

    async def connect(self, protocol):
        await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", self._port)
        await self._greet()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_connection_that_ends_before_it_is_used_is_unreachable_at_once(how):
    """Nobody would ever fail the request that was sent on it."""
    reports = Reports()

    async def greet():
        while len(reports) < 2:
            await asyncio.sleep(0)

    async def end(_, writer):
        getattr(writer.transport, how)()

    async with await asyncio.start_server(end, "127.0.0.1", 0) as server:
        connection = Slow(server.sockets[0].getsockname()[1], reports, greet)
        with pytest.raises(Unreachable, match="the module closed the connection"):
            await asyncio.wait_for(connection.start((), None), 5)
        assert [event for event, *_ in reports] == ["module:start", "module:exit"]
        await connection.close()


@pytest.mark.parametrize("raised", [OSError(5, "no greeting"), Internal("no greeting"), asyncio.CancelledError()])
async def test_a_connection_that_is_refused_after_all_is_closed(raised):
    async def greet():
        raise raised

    async with Server(echo) as server:
        connection = Slow(server.port, Reports(), greet)
        expected = Unreachable if isinstance(raised, OSError) else type(raised)
        with pytest.raises(expected, match=None if expected is asyncio.CancelledError else "no greeting"):
            await connection.start((), None)
        await asyncio.wait_for(server.left.wait(), 5)
        await connection.close()
