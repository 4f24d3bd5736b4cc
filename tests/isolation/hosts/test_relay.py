"""The parts of the relay by themselves: addresses, names, and the network of one process, with real sockets."""

import asyncio
import ipaddress
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tests.isolation.hosts.conftest import started

from amplifier_core import Unreachable
from amplifier_isolation_bwrap import _networks, open_isolation
from amplifier_isolation_bwrap._hosts import Hosts
from amplifier_isolation_bwrap._relay import addresses, main, names, network
from amplifier_isolation_bwrap._relay.connection import CHUNK, Connection, set_reset
from amplifier_isolation_bwrap._relay.namespace import Opened

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
HOSTS = Hosts((("a.test", 1, "127.0.0.2"),), "127.0.0.53", {"a.test": "127.0.0.2"})


@pytest.mark.parametrize(
    ("text", "public"),
    {
        "8.8.8.8": True,
        "93.184.216.34": True,
        "2606:4700::1": True,
        "64:ff9b::808:808": True,
        "::ffff:8.8.8.8": True,
        "0.0.0.0": False,
        "10.1.2.3": False,
        "100.100.100.200": False,
        "127.8.9.1": False,
        "169.254.169.254": False,
        "172.31.0.1": False,
        "192.0.0.192": False,
        "192.168.1.1": False,
        "198.19.0.1": False,
        "224.0.0.1": False,
        "240.0.0.1": False,
        "255.255.255.255": False,
        "168.63.129.16": False,
        "::": False,
        "::1": False,
        "::127.0.0.1": False,
        "::ffff:127.0.0.1": False,
        "64:ff9b::7f00:1": False,
        "64:ff9b:1::1": False,
        "2001::1": False,
        "2001:db8::1": False,
        "2002:7f00:1::1": False,
        "3fff::1": False,
        "fc00::1": False,
        "fe80::1": False,
        "fec0::1": False,
        "ff02::1": False,
        "100::1": False,
    }.items(),
)
def test_which_addresses_are_public(text, public):
    assert addresses.is_public(ipaddress.ip_address(text)) is public


def test_an_address_to_which_no_way_leads_is_not_the_machines_own():
    for text in ("127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"):
        assert addresses.is_own(ipaddress.ip_address(text))
    assert not addresses.is_own(ipaddress.ip_address("255.255.255.255"))


async def test_a_resolver_that_does_not_answer_is_given_up_and_few_wait_for_it(monkeypatch):
    monkeypatch.setattr(addresses, "_SECONDS", 0.1)
    go, asked = threading.Event(), []

    def hang(*_, **__):
        asked.append(1)
        go.wait(20)
        return [(0, 0, 0, "", ("8.8.8.8", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = addresses.Resolver()
    found = await asyncio.gather(*(resolver.find("a.test", 1) for _ in range(9)), return_exceptions=True)
    assert {type(each) for each in found} == {TimeoutError}
    assert len(asked) == 4
    go.set()
    while resolver._free._value < 4:
        await asyncio.sleep(0.01)
    assert await resolver.find("a.test", 1) == [ipaddress.ip_address("8.8.8.8")]


async def test_a_connection_that_nobody_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(addresses, "_SECONDS", 0.1)

    async def hang(*_):
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang, raising=False)
    with pytest.raises(OSError, match=r"127\.0\.0\.1 port 1: no answer within 0\.1 s"):
        await addresses.connect([ipaddress.ip_address("127.0.0.1")], 1)


def test_what_the_name_server_answers():
    asked = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\1A\4test\0" + struct.pack("!2H", 1, 1)
    known = {"a.test": "127.0.0.2"}

    def answer(query, known=known):
        return names.answer(query, known) or b""

    assert answer(asked)[-4:] == bytes((127, 0, 0, 2))
    assert answer(asked, {})[3] & 15 == 3
    assert answer(b"x" * 5000) == b""
    assert answer(asked[:2] + b"\x81" + asked[3:]) == b""  # it is an answer
    assert answer(asked[:2] + b"\x28" + asked[3:])[3] & 15 == 4  # an update
    assert answer(asked[:5] + b"\2" + asked[6:])[3] & 15 == 1  # two questions
    assert answer(asked[:-1] + b"\3")[3] & 15 == 1  # of another kind of network
    assert answer(asked[:12] + b"\xc0\x0c" + asked[-4:])[3] & 15 == 1  # a pointer
    of_text = answer(asked[:-3] + b"\x10" + asked[-2:])
    assert (of_text[3] & 15, of_text[6:8]) == (0, b"\0\0")


def test_whatever_is_asked_the_name_server_goes_on():
    chance = random.Random(1)
    asked = bytearray(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\1a\4test\0" + struct.pack("!2H", 1, 1))
    for _ in range(20_000):
        query = bytearray(asked)
        for _ in range(chance.randrange(4)):
            query[chance.randrange(len(query))] = chance.randrange(256)
        query = query[: chance.randrange(len(query) + 1)] + chance.randbytes(chance.randrange(40))
        reply = names.answer(bytes(query), {"a.test": "127.0.0.2"}) or b""
        assert len(reply) <= len(query) + 16


async def test_a_network_that_cannot_be_held_is_told_and_closed(monkeypatch):
    control, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relay = main._Relay(control)
    opened = Opened(os.open("/proc/self/ns/net", os.O_RDONLY), [listener()], listener(), listener())
    pairs: list[Any] = [OSError(24, "Too many open files"), socket.socketpair()]

    def pair(*_):
        found = pairs.pop()
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(socket, "socketpair", pair)
    one, other = pairs[1]
    relay._reply({}, opened)
    assert kernel.recv(1000) == b'{"error": "no network can be held: Too many open files"}'
    assert {each.fileno() for each in (one, other, *opened.listeners, opened.datagrams, opened.names)} == {-1}
    control.close()
    kernel.close()


async def test_a_network_for_which_there_is_no_thread_is_told(monkeypatch):
    def none(*_):
        raise RuntimeError("can't start new thread")

    control, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relay = main._Relay(control)
    monkeypatch.setattr(threading.Thread, "start", none)
    kernel.send(b"{}")
    relay.on_request()
    assert kernel.recv(1000) == b'{"error": "no thread can be started: can\'t start new thread"}'
    control.close()
    kernel.close()


def listener():
    made = socket.create_server(("127.0.0.1", 0))
    made.settimeout(0)
    return made


@pytest.fixture
async def relay():
    """Make the network of one process, in this one's namespace, that leads to a server here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0)
        net = os.open("/proc/self/ns/net", os.O_RDONLY)
        opened = Opened(net, [listener()], datagrams, listener())
        sync, held = socket.socketpair()
        report, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = {"targets": [(*server.getsockname(), "")], "names": {}, "connections": 2, "idle": 60}
        made = network.Network(opened, asked, sync, report)
        made.start()
        read.settimeout(20)
        with held, read:
            yield SimpleNamespace(made=made, server=server, opened=opened, held=held, read=read)
            made.end()
            made.end()  # it has ended
            await made.over


async def connected(relay):
    """Connect, and give both ends."""
    reader, writer = await asyncio.open_connection(*relay.opened.listeners[0].getsockname())
    return reader, writer, (await asyncio.to_thread(relay.server.accept))[0]


async def test_what_is_open_at_the_end_is_told_and_has_a_moment(relay, monkeypatch):
    monkeypatch.setattr(network, "_DRAIN_SECONDS", 0.1)
    reader, writer, host = await connected(relay)
    writer.write(b"hello")
    assert await asyncio.to_thread(host.recv, 5) == b"hello"
    asking = await asyncio.open_connection(*relay.opened.names.getsockname())
    while not relay.made._questioners:
        await asyncio.sleep(0)
    relay.held.close()
    await relay.made.over
    assert b'"opened": 1, "sent": 5' in relay.read.recv(1000)
    with host, pytest.raises(ConnectionResetError):
        host.recv(1)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    asking[1].close()


async def test_two_that_are_ready_at_once_do_not_pass_the_bound(relay):
    held = [await connected(relay) for _ in range(2)]
    relay.made._accept(relay.opened.listeners[0], relay.made._targets[0])
    relay.made._listen()
    assert relay.opened.listeners[0] not in relay.made._reading
    for _, writer, host in held:
        writer.close()
        host.close()


async def test_what_was_sent_before_the_end_arrives(relay):
    _, writer, host = await connected(relay)
    writer.write(b"x" * 1_000_000)
    reading = asyncio.create_task(asyncio.to_thread(lambda: sum(map(len, iter(lambda: host.recv(1 << 16), b"")))))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    relay.held.close()
    assert await reading == 1_000_000
    host.close()
    await relay.made.over


async def test_a_connection_that_is_being_made_at_the_end_is_reset(relay, monkeypatch):
    monkeypatch.setattr(network, "_DRAIN_SECONDS", 0.01)

    async def hang(*_):
        await asyncio.sleep(60)

    monkeypatch.setattr(network, "connect", hang)
    reader, writer = await asyncio.open_connection(*relay.opened.listeners[0].getsockname())
    while not relay.made._tasks:
        await asyncio.sleep(0)
    relay.made.end()
    await relay.made.over
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_resolver_without_an_answer_is_told(relay, monkeypatch):
    async def late(*_):
        raise TimeoutError

    monkeypatch.setattr(network, "connect", late)
    reader, writer = await asyncio.open_connection(*relay.opened.listeners[0].getsockname())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    relay.made.end()
    await relay.made.over
    assert b"no answer from the resolver" in relay.read.recv(1000)


async def test_without_a_descriptor_a_connection_is_accepted_later(relay, monkeypatch):
    monkeypatch.setattr(network, "_PAUSE_SECONDS", 0.01)
    broken = [OSError(24, "Too many open files"), BlockingIOError()]

    class Listener:
        def __init__(self, real):
            self.real = real

        def accept(self):
            if broken:
                raise broken.pop(0)
            return self.real.accept()

        def __getattr__(self, name):
            return getattr(self.real, name)

    relay.made._unread(relay.opened.listeners[0])
    relay.opened.listeners[:] = [Listener(relay.opened.listeners[0])]
    relay.made._listen()
    reader, writer, host = await connected(relay)
    assert broken == []
    host.close()
    assert await reader.read() == b""
    writer.close()
    relay.made._accept_questioner()  # nobody asks
    assert relay.made._questioners == set()


async def test_a_flood_of_questions_gives_others_a_turn(relay):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(40):
            sock.sendto(b"x" * 12, relay.opened.datagrams.getsockname())
        relay.made._answer()
        relay.opened.datagrams.recv(100)  # not all of them were looked at


def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other = server.accept()[0]
    other.settimeout(0)
    return one, other


async def test_an_end_that_cannot_be_passed_on_is_a_reset():
    """The host has reset what the relay did not read, as the module does not read either; then the module ends."""
    (module, inner), (host, outer) = pair(), pair()
    running = asyncio.create_task(Connection(60).run(inner, outer))
    host.settimeout(0)
    with pytest.raises(BlockingIOError):
        while True:
            await asyncio.sleep(0.001)
            host.send(b"x" * CHUNK)
    set_reset(host)
    host.close()
    module.shutdown(socket.SHUT_WR)
    await running
    with module, pytest.raises(ConnectionResetError):
        while module.recv(1 << 20):
            pass


async def test_a_connection_that_is_cancelled_before_it_is_made_closes_what_it_has():
    (module, inner), (host, outer) = pair(), pair()
    running = asyncio.create_task(Connection(60).run(inner, outer))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    for sock in (module, host, outer, inner):
        sock.close()


@pytest.fixture
def traced_relay(works, world, children_are_not_traced):
    """Return an isolation whose relay is measured for coverage."""
    isolation = open_isolation({})
    isolation.trial()
    networks = isolation._networks
    if children_are_not_traced:
        networks.command = tuple(word for word in networks.command if word not in ("-I", "-S"))
        networks.env = os.environ | {"COVERAGE_PROCESS_CONFIG": children_are_not_traced}
    yield isolation
    isolation.close()


def within(setting):
    script = f'echo 0 >/proc/sys/user/{setting} && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--", "sh", "-c", script, "sh")


@pytest.mark.parametrize("setting", ["max_user_namespaces", "max_net_namespaces"])
def test_where_no_namespace_can_be_made_it_says_so(traced_relay, setting):
    traced_relay._networks.command = (*within(setting), *traced_relay._networks.command)
    with pytest.raises(Unreachable, match="namespace can be made: No space left on device"):
        traced_relay._networks.open(HOSTS)


def test_networks_end_with_the_kernel(traced_relay):
    launch = started(traced_relay, "", ["a.test:1"])
    relay = traced_relay._networks._relay
    traced_relay.close()
    assert relay._process.returncode == 0
    launch.close()


def test_a_kernel_that_is_gone_ends_it(traced_relay):
    made = traced_relay._networks.open(HOSTS)
    relay = traced_relay._networks._relay
    relay.after_fork()  # as in a child of the kernel's, where it closes the copy
    assert relay._process.wait(20) == 0
    os.close(made.sync)


def test_a_relay_that_does_not_answer_is_killed(works, monkeypatch):
    monkeypatch.setattr(_networks, "_SECONDS", 0.1)
    networks = open_isolation({})._networks
    networks.command = ("sleep", "600")
    with pytest.raises(Unreachable, match="the relay: timed out"):
        networks.open(HOSTS)


def test_without_nsenter_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_networks, "_PATH", "/nowhere")
    with pytest.raises(Unreachable, match="nsenter is not installed; try: apt install util-linux"):
        open_isolation({})._networks.open(HOSTS)


async def test_a_kernel_that_goes_away_in_the_middle_is_no_fault():
    control, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(0)
    relay = main._Relay(control)
    asyncio.get_running_loop().add_reader(control, relay.on_request)
    control.send(b"what the kernel has not read")
    kernel.close()
    await asyncio.wait_for(relay.over.wait(), 20)
    relay._reply({}, "too late")
    control.close()


def test_the_program_of_the_kernel_needs_only_the_standard_library():
    words = (
        sys.executable,
        "-I",
        "-S",
        "-c",
        _networks._START.replace("main(int", "print(sys.modules.keys() & {'msgspec', 'attrs'}) #"),
    )
    done = subprocess.run([*words, _networks._FOLDER], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
