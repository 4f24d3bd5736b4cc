"""Modules as gRPC servers in Go, with the packages of Debian, in Node and in Python: implementations of one wire."""

import datetime as dt
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import pytest
import trustme
from tests.conftest import missing_here
from tests.grpc_transport.raw import frame
from tests.npm import PROGRAM, installed

import amplifier_transport_grpc
from amplifier_core import BadRequest, ModuleDescriptor, Timeout, Unreachable
from amplifier_core.testing import check_module
from amplifier_transport_grpc._message import encode

pytestmark = pytest.mark.newest  # the modules are the same on each Python

HERE = Path(__file__).parent / "words"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "grpc-words"
GO_PACKAGES = Path("/usr/share/gocode")
PROTO = Path(amplifier_transport_grpc.__file__).parent / "amplifier" / "v1" / "module.proto"
WORDS = "/mnt/tools/words"
FAR = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NPM_PACKAGES = ("@grpc/grpc-js@1", "@grpc/proto-loader@0.8", "grpc-health-check@2")


def in_go():
    """Compile the server where it has changed, and give its command."""
    if not shutil.which("go") or not (GO_PACKAGES / "src" / "google.golang.org" / "grpc").is_dir():
        missing_here("golang-go and golang-google-grpc-dev are not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    program, source = CACHE / "words", HERE / "words.go"
    go = {"GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOCACHE": str(CACHE / "go-build"), "CGO_ENABLED": "0"}
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["go", "build", "-o", program, source], env={**os.environ, **go}, check=True)
    return [str(program)]


def in_node():
    """Install the packages of the server, and give its command."""
    return [PROGRAM, str(HERE / "words.mjs"), str(PROTO), str(installed("grpc-node", NPM_PACKAGES))]


def in_python():
    return [sys.executable, str(HERE / "words.py")]


@pytest.fixture(params=[in_go, in_node, in_python], ids=["go", "node", "python"])
def serve(request):
    """Start the server with further arguments, and give its target."""
    command, running = request.param(), []

    def start(*arguments):
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout
        return f"dns:///localhost:{process.stdout.readline().decode().strip()}"

    yield start
    for process in running:
        process.communicate(timeout=30)


def descriptor(target, tls: Any = False):  # noqa: FBT002 - as in the descriptor
    transport = {"type": "grpc", "target": target, "tls": tls}
    return ModuleDescriptor.from_mapping({"name": "words", "kind": "tool", "capabilities": [], "transport": transport})


@pytest.fixture
async def words(session, serve):
    await session.mount("/mnt/tools", descriptor(serve()))
    return session


async def test_it_conforms(serve):
    checks = await check_module(descriptor(serve()), {"count": {"text": "a b"}, "tell": {"text": "a b"}})
    assert {check.name: check.problem for check in checks if check.problem} == {}


def test_the_check_finds_it_sound(serve, tmp_path):
    told = {"name": "words", "kind": "tool", "version": "1.0.0", "capabilities": []}
    transport = {"type": "grpc", "target": serve(), "tls": False}
    (tmp_path / "words.json").write_text(json.dumps({**told, "transport": transport}))
    ops = [f"--op={op}" for op in ('count={"text": "a b"}', 'tell={"text": "a b"}', 'count={"text": 5}=bad_request')]
    command = [sys.executable, "-m", "amplifier_tools", "check", tmp_path / "words.json", "--strict", *ops]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    assert "SOUND: " in done.stdout, done.stdout
    assert done.returncode == 0


async def test_it_counts_and_streams(words):
    assert await words.invoke(WORDS, "count", {"text": "ä b 😀"}) == {"words": 3}
    stream = words.stream(WORDS, "tell", {"text": "ä b 😀"})
    assert [chunk["word"] async for chunk in stream] == ["ä", "b", "😀"]
    assert await stream.result() == {"words": 3}


async def test_large_messages_pass(words):
    assert await words.invoke(WORDS, "count", {"text": "word " * 2_000_000}, timeout=60) == {"words": 2_000_000}


async def test_errors_have_their_details(words):
    with pytest.raises(BadRequest, match=r"args\.text: expected") as raised:
        await words.invoke(WORDS, "count", {"text": 5})
    assert raised.value.details["path"] == "args.text"


async def test_a_cancel_and_a_deadline_reach_it(words):
    with pytest.raises(Timeout):
        await words.invoke(WORDS, "wait", {}, timeout=0.3)
    async with words.stream(WORDS, "wait", {}, timeout=30):
        pass
    assert await words.invoke(WORDS, "count", {"text": ""}) == {"words": 0}


def test_the_deadline_of_a_call_holds_where_nobody_cancels_it(serve):
    headers = {":method": "POST", ":scheme": "http", ":path": "/amplifier.v1.Module/Invoke", ":authority": "localhost"}
    headers |= {"te": "trailers", "content-type": "application/grpc", "grpc-timeout": "200m"}
    http2 = h2.connection.H2Connection()
    http2.initiate_connection()
    http2.send_headers(1, list(headers.items()))
    http2.send_data(1, frame(encode(b'{"op":"wait","args":{}}')), end_stream=True)
    ends = (h2.events.StreamEnded, h2.events.StreamReset)
    with socket.create_connection(("127.0.0.1", int(serve().rpartition(":")[2])), timeout=20) as client:
        events = []
        while not any(isinstance(event, ends) for event in events):
            client.sendall(http2.data_to_send())
            received = client.recv(65536)
            assert received
            events = http2.receive_data(received)


@pytest.fixture
def certificates(tmp_path):
    """Issue certificates of an authority, or of another one, and give the files of each by its name."""
    authorities = trustme.CA(), trustme.CA()
    files = {"ca": tmp_path / "ca.pem"}
    authorities[0].cert_pem.write_to_path(files["ca"])

    def issue(name, host, by=0, **options):
        issued = authorities[by].issue_cert(host, **options)
        files[name] = {"cert": str(tmp_path / f"{name}.pem"), "key": str(tmp_path / f"{name}.key")}
        issued.cert_chain_pems[0].write_to_path(files[name]["cert"])
        issued.private_key_pem.write_to_path(files[name]["key"])

    issue("server", "localhost")
    issue("expired server", "localhost", not_after=FAR)
    issue("misnamed server", "other.example")
    issue("other server", "localhost", by=1)
    issue("client", "client.example")
    issue("expired client", "client.example", not_after=FAR)
    issue("other client", "client.example", by=1)
    return files


@pytest.fixture
def secure(serve, certificates):
    """Start the server with one of the certificates, and give what describes it to a client with one."""

    def start(name):
        target = serve(*certificates[name].values(), certificates["ca"])
        return lambda client: descriptor(target, {"ca": str(certificates["ca"]), **certificates.get(client, {})})

    return start


async def test_it_serves_clients_with_the_right_certificate_alone(session, secure):
    described = secure("server")
    for client in ("no client", "other client", "expired client"):
        with pytest.raises(Unreachable):
            await session.mount("/mnt/tools", described(client))
    await session.mount("/mnt/tools", described("client"))
    assert await session.invoke(WORDS, "count", {"text": "a"}) == {"words": 1}


@pytest.mark.parametrize("name", ["expired server", "misnamed server", "other server"])
async def test_it_is_not_trusted_with_a_wrong_certificate(session, secure, name):
    with pytest.raises(Unreachable, match="(?i)verif|peer name|hostname|expired"):
        await session.mount("/mnt/tools", secure(name)("client"))
