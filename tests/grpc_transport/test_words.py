"""Modules as gRPC servers in Go, with the packages of Debian, and in Node: other implementations of the same wire."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.conftest import missing_here
from tests.npm import PROGRAM, installed

import amplifier_transport_grpc
from amplifier_core import BadRequest, ModuleDescriptor, Timeout, Unreachable
from amplifier_core.testing import check_module

pytestmark = pytest.mark.newest  # the modules are the same on each Python

HERE = Path(__file__).parent / "words"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "grpc-words"
GO_PACKAGES = Path("/usr/share/gocode")
PROTO = Path(amplifier_transport_grpc.__file__).parent / "amplifier" / "v1" / "module.proto"
WORDS = "/mnt/tools/words"
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


@pytest.fixture(params=[in_go, in_node], ids=["go", "node"])
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


async def test_it_counts_and_streams(words):
    assert await words.invoke(WORDS, "count", {"text": "ä b 😀"}) == {"words": 3}
    stream = words.stream(WORDS, "tell", {"text": "ä b 😀"})
    assert [chunk["word"] async for chunk in stream] == ["ä", "b", "😀"]
    assert await stream.result() == {"words": 3}


async def test_large_messages_pass(words):
    assert await words.invoke(WORDS, "count", {"text": "word " * 2_000_000}, timeout=60) == {"words": 2_000_000}


async def test_errors_have_their_details(words):
    with pytest.raises(BadRequest, match="expected a string") as raised:
        await words.invoke(WORDS, "count", {"text": 5})
    assert raised.value.details["path"] == "args.text"


async def test_a_cancel_and_a_deadline_reach_it(words):
    with pytest.raises(Timeout):
        await words.invoke(WORDS, "wait", {}, timeout=0.3)
    async with words.stream(WORDS, "wait", {}, timeout=30):
        pass
    assert await words.invoke(WORDS, "count", {"text": ""}) == {"words": 0}


async def test_it_is_mutual_tls(session, serve, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("localhost", "client.example"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    target = serve(*(tmp_path / name for name in ("localhost.pem", "localhost.key", "ca.pem")))
    ours = {"cert": str(tmp_path / "client.example.pem"), "key": str(tmp_path / "client.example.key")}
    trust = {"ca": str(tmp_path / "ca.pem")}
    with pytest.raises(Unreachable):
        await session.mount("/mnt/tools", descriptor(target, trust))
    await session.mount("/mnt/tools", descriptor(target, {**trust, **ours}))
    assert await session.invoke(WORDS, "count", {"text": "a"}) == {"words": 1}
    assert json.dumps(await session.describe(WORDS)).count("words") == 1
