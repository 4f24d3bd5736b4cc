"""What a descriptor may have httpx's own transport do: go through a proxy, or speak HTTP/2."""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from hypercorn.asyncio import serve as serve_asgi
from hypercorn.config import Config
from tests.gap import LoopGap
from tests.http.raw import certified, echo, respond

from amplifier_core import Unreachable

PARAMS = b'{"args":{"n":%d}}'
WORDS = "ada:secret"


# Proxies.


@pytest.fixture
def proxy(tmp_path):
    """A proxy that lets in who knows its words; gives its port."""
    file = tmp_path / "port"
    command = [sys.executable, "-m", "proxy", "--hostname=127.0.0.1", "--port=0", f"--port-file={file}", "--threaded"]
    command += ["--num-workers=1", "--num-acceptors=1", f"--basic-auth={WORDS}", f"--data-dir={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path) as process:
        assert process.stdout
        while not (file.exists() and (port := file.read_text().strip())):
            assert process.poll() is None, process.stdout.read()
        yield int(port)
        process.terminate()
        process.stdout.read()


async def test_a_proxy_carries_requests_one_connection_each(serve, connect, proxy):
    server = await serve(echo)
    connection = await connect(server, transport={"proxy": f"http://{WORDS}@127.0.0.1:{proxy}"})
    for n in range(3):
        assert (await connection.request("invoke", PARAMS % n)).result == {"n": n}
    assert server.connections == 3


async def test_the_trace_context_goes_through_a_proxy(serve, connect, proxy):
    server = await serve(echo)
    connection = await connect(server, transport={"proxy": f"http://{WORDS}@127.0.0.1:{proxy}"})
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    params = b'{"op":"echo","request_id":"%b","span_id":"%b","args":{}}' % (trace.encode(), span.encode())
    await connection.request("invoke", params)
    await connection.request("invoke", PARAMS % 1)
    assert [each.headers.get("traceparent") for each in server.requests] == [f"00-{trace}-{span}-01", None]


async def test_a_proxy_tunnels_tls_to_a_server_that_is_trusted(serve, connect, proxy, authority):
    ca, tls = authority
    server = await serve(echo, tls=tls)
    transport = {"proxy": f"http://{WORDS}@127.0.0.1:{proxy}", "ca": str(ca)}
    connection = await connect(server, transport=transport)
    assert (await connection.request("invoke", PARAMS % 1)).result == {"n": 1}


async def test_a_proxy_that_refuses_is_unreachable_and_its_words_are_not_shown(serve, connect, proxy, authority):
    ca, tls = authority
    transport = {"proxy": f"http://ada:other-secret@127.0.0.1:{proxy}", "ca": str(ca)}
    connection = await connect(await serve(echo, tls=tls), transport=transport)
    with pytest.raises(Unreachable) as refused:
        await connection.request("invoke", PARAMS % 1)
    assert "407" in refused.value.message
    assert "other-secret" not in str(refused.value.body())


async def test_a_second_response_through_a_proxy_never_answers_the_next_call(in_a_thread, connect):
    """A forward proxy is a server that is asked for whole URLs: here it is one that says too much."""

    def answer(number):
        def one(peer):
            data = b""
            while not data.endswith(b"\r\n\r\n{}"):
                data += peer.recv(65536)
            assert data.startswith(b"POST http://module.test/invoke HTTP/1.1\r\n")
            peer.sendall(respond({"ok": True, "result": number}) + respond({"ok": True, "result": "surplus"}))
            peer.recv(1)

        return one

    port = in_a_thread(answer(1), answer(2))
    connection = await connect("http://module.test", transport={"proxy": f"http://127.0.0.1:{port}"})
    for number in (1, 2):
        assert (await connection.request("invoke", b"{}")).result == number


async def test_a_proxy_that_is_not_there_is_unreachable(connect):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    connection = await connect("https://module.test", transport={"proxy": f"http://127.0.0.1:{port}"})
    with pytest.raises(Unreachable):
        await connection.request("invoke", b"{}")


# HTTP/2.


class Module:
    """An ASGI module: it echoes, streams, or waits until its caller has gone."""

    def __init__(self):
        self.connections = set()
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError  # hypercorn asks for a lifespan, too
        assert scope["http_version"] == "2"
        self.connections.add(tuple(scope["client"]))
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        args = json.loads(body)["args"]
        kind = b"application/json"
        reply = json.dumps({"ok": True, "result": args}).encode()
        if args == "wait":
            self.asked.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
            return
        if args == "stream":
            kind, reply = b"application/x-ndjson", b'{"chunk":1}\n{"chunk":2}\n{"ok":true,"result":3}\n'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": reply})


@asynccontextmanager
async def serving(module, **options):
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 1
    config.accesslog = config.errorlog = None
    for name, value in options.items():
        setattr(config, name, value)
    port = socket.socket(fileno=int(config.bind[0][5:]))
    where = port.getsockname()[1]
    port.detach()
    over = asyncio.Event()
    task = asyncio.create_task(serve_asgi(module, config, shutdown_trigger=over.wait))
    yield f"127.0.0.1:{where}"
    over.set()
    await task


async def test_http2_carries_many_requests_on_one_connection(connect):
    module = Module()
    async with serving(module) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        replies = await asyncio.gather(*(connection.request("invoke", PARAMS % n) for n in range(20)))
        assert [reply.result for reply in replies] == [{"n": n} for n in range(20)]
        large = await connection.request("invoke", b'{"args":"%s"}' % (b"x" * 1_000_000))
        assert large.result == "x" * 1_000_000
        await connection.close()
    assert len(module.connections) == 1


async def test_http2_over_tls(connect, tmp_path):
    import trustme  # noqa: PLC0415  a dependency of these tests alone

    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    options = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    async with serving(Module(), **options) as place:
        connection = await connect(f"https://{place}", transport={"http2": True, "ca": str(tmp_path / "ca.pem")})
        assert (await connection.request("invoke", PARAMS % 1)).result == {"n": 1}
        await connection.close()


async def test_a_request_cancelled_on_http2_is_told_when_it_was_alone(connect):
    module = Module()
    async with serving(module) as place, asyncio.timeout(60):
        connection = await connect(f"http://{place}", transport={"http2": True})
        waiting = asyncio.create_task(connection.request("invoke", b'{"args":"wait"}'))
        await module.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await module.left.wait()
        assert (await connection.request("invoke", PARAMS % 1)).result == {"n": 1}
        await connection.close()
    assert len(module.connections) == 2


async def test_a_request_cancelled_on_http2_disturbs_no_other(connect):
    module = Module()
    async with serving(module) as place, asyncio.timeout(60):
        connection = await connect(f"http://{place}", transport={"http2": True})
        first, second = (asyncio.create_task(connection.request("invoke", b'{"args":"wait"}')) for _ in range(2))
        await module.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await connection.request("invoke", PARAMS % 1)).result == {"n": 1}
        assert not second.done()
        assert not module.left.is_set()
        second.cancel()
        await module.left.wait()
        await connection.close()
    assert len(module.connections) == 2


async def test_closing_http2_fails_what_is_in_flight_at_once(connect):
    module = Module()
    async with serving(module) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        waiting = asyncio.create_task(connection.request("invoke", b'{"args":"wait"}'))
        await module.asked.wait()
        async with asyncio.timeout(10):
            await connection.close()
            with pytest.raises(Unreachable):
                await waiting


async def test_a_stream_over_http2_has_its_final_reply(connect):
    async with serving(Module()) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        assert (await connection.request("invoke", b'{"args":"stream"}')).result == 3
        await connection.close()


class Leaving(asyncio.Protocol):
    """A server of HTTP/2 that a test lets say good-bye; ``/hold`` is answered when the test says so."""

    def __init__(self, made):
        self.made = made
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.args = {}
        self.held = []

    def connection_made(self, transport):
        self.made.append(self)
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived) and event.data:
                self.args[event.stream_id] = json.loads(event.data)["args"]
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.held.append(event.stream_id)
                if self.args[event.stream_id] != "hold":
                    self.answer()
        self.flush()

    def answer(self):
        for stream in self.held:
            body = json.dumps({"ok": True, "result": self.args[stream]}).encode()
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
            self.h2.send_data(stream, body, end_stream=True)
        self.held.clear()
        self.flush()

    def good_bye(self, last=None):
        """Say that no more requests are taken; h2 itself would not answer those that there are."""
        last = self.h2.highest_inbound_stream_id if last is None else last
        self.transport.write(b"\0\0\x08\7\0\0\0\0\0" + last.to_bytes(4, "big") + bytes(4))

    def close(self):
        self.transport.close()


@pytest.fixture
async def leaving(connect, tmp_path, request):
    """Connections of a server that may leave, and the client's own; over TLS if the test says so."""
    made: list[Leaving] = []
    secure = getattr(request, "param", False)
    ca, tls = certified(tmp_path) if secure else (None, None)
    if tls:
        tls.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(lambda: Leaving(made), "127.0.0.1", 0, ssl=tls)
    url = f"{'https' if secure else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connection = await connect(url, transport={"http2": True, **({"ca": str(ca)} if ca else {})})
    yield made, connection
    await connection.close()
    server.close()
    for each in made:
        each.transport.abort()


async def ask(connection, args):
    async with asyncio.timeout(10):
        return (await connection.request("invoke", json.dumps({"args": args}).encode())).result


async def arrival():
    """Give what was sent within this process the time to arrive."""
    for _ in range(20):
        await asyncio.sleep(0)


WAYS = {"good-bye": ["good_bye", "close"], "good-bye alone": ["good_bye"], "a close": ["close"]}


@pytest.mark.parametrize("leaving", [False, True], indirect=True, ids=["plain", "tls"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_an_http2_connection_that_the_server_has_left_is_not_used_again(leaving, way):
    made, connection = leaving
    for n in range(1, 4):
        assert await ask(connection, n) == n
        assert len(made) == n
        for step in way:
            getattr(made[-1], step)()
        await arrival()
    assert sorted(await asyncio.gather(*(ask(connection, n) for n in range(9)))) == list(range(9))
    assert len(made) == 4


@pytest.mark.parametrize("leaving", [False, True], indirect=True, ids=["plain", "tls"])
@pytest.mark.parametrize("pings", [0, 600])  # beyond what is read at once
async def test_a_good_bye_that_arrives_with_an_answer_is_heard(leaving, pings):
    made, connection = leaving
    held = asyncio.create_task(ask(connection, "hold"))
    while not made or not made[0].held:
        await asyncio.sleep(0)
    made[0].answer()
    for _ in range(pings):
        made[0].h2.ping(b"are you?")
    made[0].flush()
    made[0].good_bye()
    assert await held == "hold"
    assert sorted(await asyncio.gather(*(ask(connection, n) for n in range(9)))) == list(range(9))
    assert len(made) == 2


async def test_what_is_in_flight_when_an_http2_server_says_good_bye_is_answered(leaving):
    made, connection = leaving
    assert await ask(connection, 1) == 1
    held = [asyncio.create_task(ask(connection, "hold")) for _ in range(2)]
    while len(made[0].held) < 2:
        await asyncio.sleep(0)
    made[0].good_bye()
    await arrival()
    assert await ask(connection, 2) == 2
    assert len(made) == 2
    made[0].answer()
    assert await asyncio.gather(*held) == ["hold", "hold"]
    async with asyncio.timeout(10):
        while not made[0].transport.is_closing():
            await asyncio.sleep(0)


async def test_a_request_that_crosses_with_a_good_bye_of_http2_goes_elsewhere(leaving):
    """The server says that it has not looked at it, so that it is not carried out twice."""
    made, connection = leaving
    assert await ask(connection, 1) == 1
    held = asyncio.create_task(ask(connection, "hold"))
    while not made[0].held:
        await asyncio.sleep(0)
    made[0].good_bye(last=1)
    made[0].close()
    while len(made) < 2 or not made[1].held:
        await asyncio.sleep(0)
    made[1].answer()
    assert await held == "hold"


@pytest.mark.parametrize("leaving", [False, True], indirect=True, ids=["plain", "tls"])
async def test_an_idle_http2_connection_that_hears_something_is_kept(leaving):
    made, connection = leaving
    for n in range(3):
        assert await ask(connection, n) == n
        made[0].h2.ping(b"are you?")
        made[0].flush()
        await arrival()
    assert len(made) == 1


@pytest.mark.parametrize("frame", [b"\0\0\x08\6\0\0\0\0\0are you?", b"\0\0\0\4\0\0\0\0\0"], ids=["pings", "settings"])
async def test_an_idle_http2_connection_that_hears_without_end_is_closed(leaving, frame):
    made, connection = leaving
    assert await ask(connection, 1) == 1
    made[0].transport.write(frame * 30_000)
    await arrival()
    assert await ask(connection, 2) == 2
    assert len(made) == 2


SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
EMPTY_DATA = b"\0\0\0\0\0\0\0\0\1"
RESPONSE = b"\0\0\1\1\4\0\0\0\1\x88"  # HEADERS, the end of them, with status 200


@pytest.mark.parametrize("flood", [SETTINGS, EMPTY_DATA, SETTINGS + EMPTY_DATA], ids=["settings", "data", "both"])
async def test_frames_of_http2_without_content_are_counted_and_hold_nothing(in_a_thread, connect, flood):
    def serve(peer):
        peer.recv(65536)
        with suppress(OSError):
            peer.sendall(SETTINGS + RESPONSE)
            while True:
                peer.sendall(flood * 5000)

    connection = await connect(f"http://127.0.0.1:{in_a_thread(serve)}", transport={"http2": True})
    async with asyncio.timeout(30), LoopGap() as gap:
        with pytest.raises(Unreachable, match="more than 10000 frames of HTTP/2 in a row without content"):
            await connection.request("invoke", b"{}")
    assert min(gap.worst, gap.worst_cpu) < 0.25  # the server is a thread of this process


async def test_a_server_that_knows_no_http2_is_unreachable(serve, connect):
    async def answer(request):
        await request.send(respond({"ok": True, "result": 1}))

    server = await serve(answer)
    connection = await connect(server, transport={"http2": True})
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable):
            await connection.request("invoke", b"{}")
