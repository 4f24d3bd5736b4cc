"""A worker in Go, written from PROTOCOL.md alone, with the packages of Debian: it is as good as the one here."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.nats_transport.servers import WorkerProcess, descriptor
from tests.nats_transport.test_words import params, until
from tests.nats_transport.test_worker import Kernel

from amplifier_core import Timeout, Unreachable
from amplifier_core.hookspecs import Chunks
from amplifier_core.testing import check_module, check_transport

pytestmark = pytest.mark.newest  # the worker is the same on each Python

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "nats" / "worker"
CACHE = ROOT / ".cache" / "nats-go"
GO_PACKAGES = Path("/usr/share/gocode")
SOURCES = {
    "wordcount": [EXAMPLE / "worker.go", EXAMPLE / "wordcount.go"],
    "probe": [EXAMPLE / "worker.go", Path(__file__).parent / "probe.go"],
}
FEW_MIB = {"message_bytes": 4 << 20}
TEXT = "ä b 😀"


def compiled(name):
    """Compile a worker where it has changed, and give its path."""
    if not shutil.which("go") or not (GO_PACKAGES / "src" / "github.com" / "nats-io" / "nats.go").is_dir():
        missing_here("golang-go and golang-github-nats-io-go-nats-dev are not installed")
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    program, sources = folder / name, [folder / file.name for file in SOURCES[name]]
    go = {"GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOCACHE": str(CACHE / "go-build"), "CGO_ENABLED": "0"}
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
        newest = max(file.stat().st_mtime for file in SOURCES[name])
        if not program.exists() or program.stat().st_mtime < newest:
            for file in SOURCES[name]:
                shutil.copyfile(file, folder / file.name)  # Go compiles the files of one folder
            for command in (["vet"], ["build", "-o", program]):
                subprocess.run(["go", *command, *sources], env={**os.environ, **go}, check=True)
    return program


@pytest.fixture
def go(subject):
    """Start a worker in Go: ``go(server, "wordcount")``."""
    workers = []

    def start(server, name="wordcount"):
        command = [compiled(name), "-servers", server.address, "-subject", subject]
        workers.append(WorkerProcess(command))
        return workers[-1].wait("serving")

    yield start
    for each in workers:
        each.terminate()
    for each in workers:
        each.end(10)


@pytest.fixture
def words(nats, subject):
    return descriptor(nats, subject=subject, name="wordcount")


async def test_it_keeps_the_rules_of_transports(nats, go, subject):
    go(nats, "probe")
    found = await check_transport(descriptor(nats, subject=subject, name="probe", limits=FEW_MIB))
    assert [check for check in found if check.problem] == []


async def test_it_conforms(nats, go, words):
    go(nats)
    checks = await check_module(words, {"count": {"text": TEXT}, "tell": {"text": TEXT}, "wait": {"seconds": 0}})
    assert {check.name: check.problem for check in checks if check.problem} == {}


def test_the_check_finds_it_sound(nats, go, subject, tmp_path):
    go(nats)
    transport = {"type": "nats", "servers": nats.address, "subject": subject, "tls": False}
    file = tmp_path / "wordcount.json"
    file.write_text(json.dumps({"name": "wordcount", "kind": "tool", "capabilities": [], "transport": transport}))
    asked = 'count={"text": "a b"}', 'tell={"text": "a b"}', 'wait={"seconds": 1.5}', 'count={"text": 5}=bad_request'
    command = [sys.executable, "-m", "amplifier_tools", "check", file, "--strict", *(f"--op={op}" for op in asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    assert "SOUND: " in done.stdout, done.stdout
    assert done.returncode == 0


async def test_chunks_come_in_order_and_a_cancel_reaches_it(nats, go, session, words):
    go(nats)
    await session.mount("/mnt/tools", words)
    many = " ".join(str(n) for n in range(5000))
    stream = session.stream("/mnt/tools/wordcount", "tell", {"text": many})
    assert [chunk["word"] async for chunk in stream] == many.split()
    assert await stream.result() == {"words": 5000}
    assert await session.invoke("/mnt/tools/wordcount", "tell", {"text": TEXT}) == {"words": 3}
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/wordcount", "wait", {"seconds": 60}, timeout=0.3)


@pytest.mark.parametrize("size", [300_000, 8_000_000])
async def test_large_messages_come_in_parts(nats, go, connect, size):
    go(nats, "probe")
    connection = await connect(nats, name="probe")
    for args in ({"text": "x" * size}, {"text": "y" * size}):
        assert (await connection.request("invoke", params(**args))).result == args


async def test_a_large_chunk_comes_in_parts_as_well(nats, go, connect):
    go(nats, "probe")
    connection, chunks = await connect(nats, name="probe"), Chunks()
    call = asyncio.ensure_future(connection.request("invoke", params("chunks", count=4, kib=3000), chunks))
    assert [(chunk := await chunks.get())["n"] for _ in range(4)] == [0, 1, 2, 3]
    assert len(chunk["pad"]) == 3000 << 10
    assert (await call).result == {"count": 4}


async def test_a_request_that_takes_long_is_alive(nats, go, connect):
    go(nats)
    connection = await connect(nats)
    assert (await connection.request("invoke", params("wait", seconds=4))).ok  # longer than anybody may be silent


@pytest.fixture
async def stranger(nats, later):
    other = Kernel()
    await other.start(nats)
    later.push_async_callback(other.client.close)
    return other


async def test_what_it_says_and_what_it_refuses(nats, go, stranger, subject):
    go(nats)
    await stranger.ask(f"{subject}.invoke", params("wait", seconds=60))
    await until(lambda: stranger.words[:3] == ["taken", "alive", "alive"])
    await stranger.ask(stranger.control, b"", "cancel")
    assert (await stranger.answer())[1]["error"]["code"] == "cancelled"
    for data, word, says in (
        (b"{x", "", "the request: "),
        (b"{}{}", "part 0 2", "expected the part of 2 bytes at 0"),
        (b"{", "part 0 999999999", "expected at most 33554432 bytes"),
        (b"{}", "sing", "expected a word of the protocol"),
    ):
        await stranger.ask(f"{subject}.invoke", data, word)
        told, failure = await stranger.answer()
        assert (told, failure["code"]) == ("failed", "bad_request")
        assert says in failure["message"]
    await stranger.ask(f"{subject}.invoke", params("count", text=""), inbox="")  # nobody wants to know
    late = json.dumps({"op": "wait", "args": {"seconds": 60}, "deadline_ms": 100}).encode()
    await stranger.ask(f"{subject}.invoke", late)
    assert (await stranger.answer())[1]["error"]["code"] == "cancelled"


async def test_a_cancelled_request_does_not_wait_for_who_reads_no_more(nats, go, stranger, subject):
    go(nats, "probe")
    chunks = params("chunks", count=100, kib=64)
    await stranger.ask(f"{subject}.invoke", chunks, **{"Amplifier-Chunks": "yes"})
    await until(lambda: len(stranger.heard) == (2 << 20) // (66 << 10))
    await stranger.ask(stranger.control, b"", "cancel")
    await until(lambda: stranger.words[-1] == "failed")
    assert stranger.heard[-1][1]["code"] == "cancelled"
    assert len(stranger.heard) == (2 << 20) // (66 << 10) + 1


async def test_a_kernel_that_has_gone_ends_its_request(nats, go, connect, subject):
    go(nats, "probe")
    connection, gone = await connect(nats, name="probe"), Kernel()
    await gone.start(nats)
    await gone.ask(f"{subject}.invoke", params("wait"))
    await until(lambda: gone.control)
    await gone.client.close()
    async with asyncio.timeout(20):
        while not (await connection.request("invoke", params("cancelled"))).result["count"]:
            await asyncio.sleep(0.05)


async def test_it_drains_when_it_is_told_to_stop(nats, go, connect):
    worker = go(nats)
    connection = await connect(nats)
    calls = [asyncio.ensure_future(connection.request("invoke", params("wait", seconds=1.5))) for _ in range(16)]
    await until(lambda: sum(bool(call.worker) for call in connection._calls) == 16)
    worker.terminate()
    assert all([(await call).ok for call in calls])
    assert await asyncio.to_thread(worker.end) == 0
    with pytest.raises(Unreachable, match="no worker serves it"):
        await connection.request("invoke", params("count", text=""))


async def test_a_rolling_update_fails_no_call(nats, go, connect):
    worker = go(nats)
    connection, failed = await connect(nats), []
    updating = True

    async def call():
        while updating:
            if not (await connection.request("invoke", params("count", text="a b"))).ok:
                failed.append(1)

    calls = [asyncio.create_task(call()) for _ in range(8)]
    for _ in range(2):
        other = await asyncio.to_thread(go, nats)
        worker.terminate()
        assert await asyncio.to_thread(worker.end) == 0
        worker = other
    updating = False
    await asyncio.gather(*calls)
    assert not failed


async def test_it_finds_a_server_that_comes_back(server, go, connect):
    nats = server().start()
    worker = go(nats)
    connection = await connect(nats)
    call = asyncio.ensure_future(connection.request("invoke", params("wait", seconds=60)))
    await until(lambda: any(each.worker for each in connection._calls))
    nats.kill()
    with pytest.raises(Unreachable, match="the connection to NATS was lost"):
        await call
    nats.start()
    await asyncio.to_thread(worker.wait, "serving")
    assert (await connection.request("invoke", params("count", text="a b"))).result == {"words": 2}
