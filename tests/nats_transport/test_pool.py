"""Pools as they are in use: modules in several languages, the check from the shell, networks that are slow or cut."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from tests.conftest import missing_here
from tests.nats_transport.objects import Echo
from tests.nats_transport.servers import descriptor, is_root, local
from tests.nats_transport.test_words import params, until
from tests.polyglot.test_polyglot import EXAMPLES
from tests.polyglot.toolchains import ToolchainMissing, prepare

from amplifier_core import Unreachable, load_descriptor
from amplifier_core.testing import check_module
from amplifier_tools._cli import main
from amplifier_transport_nats._place import Place

PID = os.getpid()  # tests run in several processes at once
HERE, THERE = (f"10.{200 + PID % 50}.{PID // 50 % 250}.{n}" for n in (1, 2))
SPACE, LINK = f"amp{PID}", f"here{PID}"
INSIDE = ("ip", "netns", "exec", SPACE)
TABLE = f"inet amp{PID}"


@pytest.mark.newest
@pytest.mark.parametrize("language", ["bash", "node", "python"])
async def test_modules_in_several_languages_behave_alike_through_workers(nats, serve, subject, language):
    try:
        described = load_descriptor(prepare(language))
    except ToolchainMissing as error:
        missing_here(str(error))
        raise
    await serve(nats, described)
    fields = {"name": described.name, "kind": described.kind, "capabilities": list(described.capabilities)}
    limits = {"concurrency": described.limits.concurrency} if described.limits.concurrency else {}
    there = descriptor(nats, subject=subject, limits=limits, **fields)
    checks = await check_module(there, EXAMPLES, seconds=30)
    assert {check.name: check.problem for check in checks if check.problem} == {}


async def test_the_check_finds_a_module_sound_through_a_worker(nats, serve, subject, tmp_path):
    await serve(nats, Echo(kind="tool"))
    file = tmp_path / "m.json"
    transport = {"type": "nats", "servers": nats.address, "subject": subject, "tls": False}
    file.write_text(json.dumps({"name": "m", "kind": "tool", "capabilities": [], "transport": transport}))
    words = ["check", str(file), "--op", 'echo={"a": 1}', "--op", 'fail={"code": "own"}=own', "--timeout", "20"]
    done = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert done.exit_code == 0, done.output


async def test_what_no_worker_enforces_is_unenforced_for_policy(nats, serve, session, subject):
    async def allow(event):
        seen.append(event.data["unenforced"])
        return {"decision": "allow"}

    seen: list = []
    await serve(nats, Echo(capabilities=["fs:read:/srv"]))
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", descriptor(nats, subject=subject, capabilities=["fs:read:/srv"]))
    assert seen[0] == ["fs:read:/srv"]  # it is an object in that worker's process, which nothing confines


@pytest.fixture
def network():
    """Make a network of two machines: this one, and a namespace. Give a function that cuts it."""
    if not is_root() or shutil.which("ip") is None:
        missing_here("only root makes network namespaces, with iproute2")

    def run(*words):
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def clean():
        for words in (("ip", "link", "del", LINK), ("ip", "netns", "del", SPACE), ("nft", f"delete table {TABLE}")):
            with contextlib.suppress(FileNotFoundError):
                subprocess.run(words, check=False, capture_output=True)

    clean()
    try:
        run("ip", "netns", "add", SPACE)
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "there", "netns", SPACE)
        run("ip", "addr", "add", f"{HERE}/24", "dev", LINK)
        run("ip", "link", "set", LINK, "up")
        run(*INSIDE, "ip", "addr", "add", f"{THERE}/24", "dev", "there")
        run(*INSIDE, "ip", "link", "set", "there", "up")
    except subprocess.CalledProcessError as error:
        clean()
        pytest.skip(f"this system makes no network namespaces: {error.stderr.strip()}")
    yield run
    clean()


async def test_a_machine_that_is_cut_off_loses_its_own_calls_alone(network, server, serve, work, connect):
    nats = server(address="0.0.0.0").start()
    module = Echo()
    worker = work(nats, local("echo.py"), within=INSIDE, at=f"{HERE}:{nats.port}")
    connection = await connect(nats)
    theirs = asyncio.ensure_future(connection.request("invoke", params("sleep", seconds=60)))
    await until(lambda: any(each.worker for each in connection._calls))
    await serve(nats, module)
    ours = [asyncio.ensure_future(connection.request("invoke", params("wait", n=n))) for n in range(20)]
    await until(lambda: module.met)
    network("ip", "link", "set", LINK, "down")
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unreachable, match="its worker has been silent for 3 s"):
        await theirs
    assert asyncio.get_running_loop().time() - began < 20
    module.go_on.set()
    assert all([(await ours[args["n"]]).ok for _, args in module.met])
    for each in ours:  # those that the other one had
        each.cancel()
    worker.kill()  # it would wait for its server


def delay_under_load(network):
    """Let packets wait for those before them, in both directions, up to 100 ms. Give how often one had to."""
    for where, device in (((), LINK), (INSIDE, "there")):
        network(*where, *f"tc qdisc add dev {device} root tbf rate 30mbit burst 16kb latency 100ms".split())
    return lambda: counted(r"overlimits (\d+)", network, f"tc -s qdisc show dev {LINK}", "tc -s qdisc show dev there")


def lose(network):
    """Drop one of twenty packets at random, in both directions. Give how many were."""
    if shutil.which("nft") is None:
        missing_here("nft is not installed")
    for where, device in (((), LINK), (INSIDE, "there")):
        rule = f"iifname {device} numgen random mod 100 < 5 counter drop"
        network(*where, "nft", f"table {TABLE} {{ chain drops {{ type filter hook input priority 0; {rule}; }}; }}")
    return lambda: counted(r"counter packets (\d+)", network, *[f"nft list table {TABLE}"] * 2)


def delay_and_lose(network):
    """Hold each packet for 20 ms, and drop one of twenty, towards the worker. Give how many were."""
    network(*f"tc qdisc add dev {LINK} root netem delay 20ms 5ms loss 5%".split())
    return lambda: counted(r"dropped (\d+)", network, f"tc -s qdisc show dev {LINK}", "true")


def counted(pattern, network, here, there):
    """Add up what the counters at both ends say."""
    return sum(map(int, re.findall(pattern, network(*here.split()) + network(*INSIDE, *there.split()))))


@pytest.mark.parametrize("spoil", [delay_under_load, lose, delay_and_lose])
async def test_a_network_that_delays_and_loses_packets(network, server, work, connect, spoil):
    try:
        met = spoil(network)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the kernel of this system has no such queue or rule: {error.stderr.strip()}")
    nats = server(address="0.0.0.0").start()
    work(nats, local("echo.py"), within=INSIDE, at=f"{HERE}:{nats.port}")
    connection = await connect(nats)
    replies = [connection.request("invoke", params(n=n, text="x" * 100_000)) for n in range(50)]
    assert [reply.result["n"] for reply in await asyncio.gather(*replies)] == list(range(50))
    assert met() > 0


async def test_a_network_that_is_slow(nats, serve, connect, later):
    """Of both ends, each read takes 30 ms to the other: a relay does what netem would."""

    async def carry(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                await asyncio.sleep(0.03)
                writer.write(data)
        writer.close()

    async def relay(reader, writer):
        there = await asyncio.open_connection("127.0.0.1", nats.port)
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    slow = await asyncio.start_server(relay, "127.0.0.1", 0)
    later.callback(slow.close)
    address = f"127.0.0.1:{slow.sockets[0].getsockname()[1]}"
    await serve(nats, Echo(), place=Place(servers=(address,)))
    connection = await connect(address)
    replies = [connection.request("invoke", params(n=n, text="x" * 100_000)) for n in range(32)]
    assert [reply.result["n"] for reply in await asyncio.gather(*replies)] == list(range(32))
    large = "x" * 5_000_000
    assert (await connection.request("invoke", params(text=large))).result == {"text": large}


CALLS = int(os.environ.get("AMPLIFIER_NATS_CALLS", "1200"))
"""How many calls are spread over four workers; 10,000 take some ten seconds."""


async def test_calls_are_spread_evenly_over_four_workers(nats, serve, connect):
    modules = [Echo() for _ in range(4)]
    for each in modules:
        await serve(nats, each)
    connection = await connect(nats)

    async def call(count):
        for n in range(count):
            assert (await connection.request("invoke", params(n=n))).result == {"n": n}

    await asyncio.gather(*(call(CALLS // 64) for _ in range(64)))
    mean = CALLS // 64 * 64 / 4
    assert all(abs(len(each.met) - mean) <= 0.2 * mean + 20 for each in modules)
