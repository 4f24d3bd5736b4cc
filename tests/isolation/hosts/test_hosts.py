"""A module that was granted a host reaches it by its name, with TLS from end to end, and each connection is counted."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.isolation.hosts.conftest import NAMES, started

from amplifier_core import Forbidden, Kernel, Unreachable
from amplifier_isolation_bwrap import open_isolation
from amplifier_isolation_bwrap._hosts import Hosts

ALLOWED = "allowed.test:443"
HELLO = "hello from 93.184.216.34 443"
RESET = "Connection reset by peer"


async def test_a_host_is_reached_by_its_name(run):
    code = """
with connect("allowed.test", 443) as connection:
    connection.sendall(b"ping")
    connection.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: connection.recv(100), b"")))
"""
    said, counted = await run(code, ALLOWED)
    assert said == f"b'{HELLO}\\nping'\n"
    assert counted == {ALLOWED: {"opened": 1, "sent": 4, "received": 33}}


async def test_tls_is_from_end_to_end(run, world):
    authority = (world.folder / "authority.pem").read_text()
    code = f"""
import ssl
context = ssl.create_default_context(cadata={authority!r})
with connect("allowed.test", 8443) as connection:
    with context.wrap_socket(connection, server_hostname="allowed.test") as tls:
        print(tls.recv(100).decode().strip(), tls.getpeercert()["subjectAltName"])
"""
    said, _ = await run(code, "allowed.test:8443")
    assert said == "hello from 93.184.216.34 8443 (('DNS', 'allowed.test'),)\n"


LANGUAGES = {
    "node": [
        "-e",
        "require('net').connect(443, 'allowed.test').once('data', d => process.exit(console.log(d + '')))",
    ],
    "perl": ["-MIO::Socket::INET", "-e", "print IO::Socket::INET->new('allowed.test:443')->getline"],
    "curl": ["--silent", "--max-time", "5", "telnet://allowed.test:443"],
    "bash": ["-c", "exec 3<>/dev/tcp/allowed.test/443; read -r line <&3; echo $line"],
    "openssl": ["s_client", "-quiet", "-verify_quiet", "-connect", "allowed.test:8443"],
}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_any_language_reaches_it(run, language):
    if not (program := shutil.which(language, path="/usr/bin:/bin")):
        missing_here(f"{language} is not installed in the system")
    said, _ = await run([program, *LANGUAGES[language]], ALLOWED, "allowed.test:8443")
    assert "hello from 93.184.216.34" in said


async def test_a_resolver_that_reads_no_file_asks_the_name_server(run):
    if not (node := shutil.which("node", path="/usr/bin:/bin")):
        missing_here("node is not installed in the system")
    code = """
const dns = require('dns').promises
Promise.all([dns.resolve4('allowed.test'), dns.resolve6('allowed.test').catch(e => e.code),
             dns.resolve4('other.test').catch(e => e.code)]).then(found => console.log(JSON.stringify(found)))
"""
    said, _ = await run([node, "-e", code], ALLOWED)
    assert said == '[["127.0.0.2"],"ENODATA","ENOTFOUND"]\n'


async def test_an_address_is_there_as_itself_if_it_was_granted(run):
    hosts = (
        "127.0.0.1:80",
        "10.0.0.5:443",
        "[::1]:80",
        "[fd00:ec2::254]:80",
        "127.0.0.53:443",
        "127.0.0.2:443",
        ALLOWED,
    )
    code = """
for host, port in (("127.0.0.1", 80), ("10.0.0.5", 443), ("::1", 80), ("fd00:ec2::254", 80), ("127.0.0.53", 443),
                   ("127.0.0.2", 443), ("allowed.test", 443), ("10.0.0.5", 80), ("10.0.0.6", 443)):
    print(said(host, port))
"""
    said, counted = await run(code, *hosts)
    assert said.splitlines() == [
        "hello from 127.0.0.1 80",
        "hello from 10.0.0.5 443",
        "hello from ::1 80",
        "hello from fd00:ec2::254 80",
        "hello from 127.0.0.53 443",
        "hello from 127.0.0.2 443",
        HELLO,
        "Connection refused",
        "Network is unreachable",
    ]
    assert {host: told["opened"] for host, told in counted.items()} == dict.fromkeys(hosts, 1)


async def test_a_name_may_have_addresses_of_several_kinds(run):
    names = ("both.test", "six.test", "allowed64.test")
    said, _ = await run(f"for name in {names}: print(said(name))", *(f"{name}:443" for name in names))
    assert said.splitlines() == [HELLO, "hello from 2606:4700::34 443", "hello from 64:ff9b::5db8:d822 443"]


async def test_a_name_is_resolved_anew_for_each_connection(run, world):
    code = f"""
import sys, time
print(said("allowed.test"), flush=True)
deadline = time.monotonic() + 20
while (last := said("allowed.test")) == {HELLO!r} and time.monotonic() < deadline:
    time.sleep(0.02)
print(last)
"""

    async def rebind():
        await asyncio.sleep(0.5)
        world.hosts.write_text(NAMES.replace("93.184.216.34 allowed.test", "127.0.0.1 allowed.test"))

    try:
        (said, counted), _ = await asyncio.gather(run(code, ALLOWED), rebind())
    finally:
        world.hosts.write_text(NAMES)
    assert said.splitlines() == [HELLO, RESET]
    assert counted[ALLOWED]["last_error"] == "allowed.test is 127.0.0.1, which is not public"


async def test_what_cannot_be_reached_is_reset_and_told(run):
    code = 'print(said("allowed.test", 81), said("gone.test"), said("allowed.test", 8002))'
    said, counted = await run(code, "allowed.test:81", "gone.test:443", "allowed.test:8002")
    assert said == f"{RESET} {RESET} {RESET}\n"
    assert counted["allowed.test:81"] == {"failed": 1, "last_error": "93.184.216.34 port 81: Connection refused"}
    assert counted["gone.test:443"]["last_error"].startswith("gone.test: ")
    assert len(counted) == 3  # the last one was opened, or failed at once


async def test_what_is_sent_arrives_whole_and_the_end_too(run):
    code = """
with connect("allowed.test", 8000) as connection:
    connection.sendall(b"x" * 5_000_000)
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(100).decode())
"""
    said, counted = await run(code, "allowed.test:8000")
    assert said == "5000000\n"
    assert counted["allowed.test:8000"]["sent"] == 5_000_000


async def test_a_host_that_does_not_read_holds_the_module_back(run):
    code = """
with connect("allowed.test", 8001) as connection:
    connection.recv(100)
    connection.settimeout(0.5)
    sent = 0
    try:
        while sent < 1 << 27:
            sent += connection.send(b"x" * 65536)
    except TimeoutError:
        print("held back", sent < 1 << 26)
"""
    said, _ = await run(code, "allowed.test:8001")
    assert said == "held back True\n"


async def test_a_module_that_does_not_read_holds_the_host_back(run):
    code = """
with connect("allowed.test", 443) as connection:
    connection.settimeout(0.5)
    try:
        while True:
            connection.send(b"x" * 65536)
    except TimeoutError:
        connection.settimeout(10)
        print("held back", sum(len(connection.recv(65536)) for _ in range(100)) > 0)
"""
    said, _ = await run(code, ALLOWED)
    assert said == "held back True\n"


async def test_connections_beyond_the_bound_wait(run):
    code = """
held = [connect("allowed.test", 443) for _ in range(4)]
for each in held:
    each.recv(100)
more = connect("allowed.test", 443)
more.settimeout(0.3)
try:
    print(more.recv(100))
except TimeoutError:
    print("it waits")
held.pop().close()
more.settimeout(10)
print(more.recv(100).decode())
"""
    said, counted = await run(code, ALLOWED)
    assert said == f"it waits\n{HELLO}\n\n"
    assert counted[ALLOWED]["opened"] == 5


async def test_a_connection_without_bytes_is_reset(run):
    code = """
with connect("allowed.test", 443) as connection:
    connection.recv(100)
    try:
        connection.recv(100)
    except OSError as error:
        print(error.strerror)
"""
    said, _ = await run(code, ALLOWED)
    assert said == f"{RESET}\n"


async def test_the_name_server_answers_streams_and_survives_what_is_no_question(run):
    code = """
import struct
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\\x07allowed\\x04test\\0" + struct.pack("!2H", 1, 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
    names.settimeout(10)
    for packet in [b"", b"x", b"\\xff" * 600, *[question[:size] for size in range(12, len(question))], question]:
        names.sendto(packet, ("127.0.0.53", 53))
    while (reply := names.recv(1000))[6:8] != b"\\0\\x01":
        pass
    print(reply[-4:])
with connect("127.0.0.53", 53) as names:
    for _ in range(2):
        names.sendall(len(question).to_bytes(2, "big") + question)
        print(names.recv(1000)[-4:])
    names.sendall(b"\\xff\\xff")
    print(names.recv(1000))
many = [connect("127.0.0.53", 53) for _ in range(9)]
print(many[-1].recv(1000))
many[0].sendall((3).to_bytes(2, "big") + b"xyz")
print(many[0].recv(1000))
"""
    said, _ = await run(code, ALLOWED)
    address = r"b'\x7f\x00\x00\x02'"
    assert said.splitlines() == [address, address, address, "b''", "b''", "b''"]


async def test_the_files_that_tell_of_hosts_are_the_sandboxs_own(run):
    code = 'print(open("/etc/hosts").read() + open("/etc/resolv.conf").read()); print(said("allowed.test"))'
    for more in ((), ("fs:read:/etc",)):
        said, _ = await run(code, ALLOWED, more=more)
        lines = [
            "127.0.0.1 localhost",
            "::1 localhost",
            "127.0.0.2 allowed.test",
            "nameserver 127.0.0.53",
            "search .",
            "",
        ]
        assert said.splitlines() == [*lines, HELLO]


def relay_of(isolation):
    return isolation._networks._relay._process.pid


def open_in(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_nothing_of_it_outlives_the_module(relayed):
    before = open_in(relay_of(relayed))
    launch = started(
        relayed, 'held = [connect("allowed.test", 443) for _ in range(3)]\nprint(flush=True)\ninput()', [ALLOWED]
    )
    with launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        await asyncio.to_thread(process.stdout.readline)
        assert open_in(relay_of(relayed)) > before
        process.kill()
    await launch.end()
    await until(lambda: open_in(relay_of(relayed)) <= before)


async def test_a_launch_that_is_not_started_leaves_nothing(relayed):
    before = open_in(relay_of(relayed))
    launch = started(relayed, "", [ALLOWED])
    launch.close()
    await until(lambda: open_in(relay_of(relayed)) <= before)
    assert await launch.end() == {"connections": {}}


async def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_network_that_cannot_be_made_ends_no_other_one(relayed):
    code = """
held = connect("allowed.test", 443)
held.recv(100)
print(flush=True)
input()
held.send(b"x")
print(held.recv(1))
"""
    launch = started(relayed, code, [ALLOWED])
    relay = relay_of(relayed)
    before = open_in(relay)
    with launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        await asyncio.to_thread(process.stdout.readline)
        for address in ("fe80::1", "224.0.0.1"):  # whoever looks at them refuses them before
            with pytest.raises(Unreachable, match="no network namespace can be made"):
                relayed._networks.open(Hosts(((address, 443, address),), "127.0.0.53", {}))
        assert process.communicate("\n")[0] == "b'x'\n"
    assert relay_of(relayed) == relay
    await launch.end()
    await until(lambda: open_in(relay) <= before)


async def test_no_other_program_inherits_what_holds_a_network(relayed):
    launch = started(relayed, "", [ALLOWED])
    held = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_inheritable_socket(fd)]
    launch.close()
    await launch.end()
    assert held == []


def is_inheritable_socket(fd):
    try:
        return "socket:" in os.readlink(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)
    except OSError:
        return False


async def test_as_many_hosts_as_there_may_be_are_reached_and_counted(run):
    long = ".".join(letter * 61 for letter in "abc")
    names = [f"{long}.{n:061}.tes" for n in range(255)]
    assert {len(name) for name in names} == {251}
    code = f"""
for n in range(255):
    said("{long}.%061d.tes" % n)
print(said("allowed.test"))
"""
    said, counted = await run(code, *(f"{name}:443" for name in names), ALLOWED)
    assert said == f"{HELLO}\n"
    assert len(counted) == 256


async def test_a_storm_of_connections_leaves_nothing_in_the_relay(run, relayed):
    before = open_in(relay_of(relayed))
    code = """
import struct
for n in range(400):
    with connect("allowed.test", (443, 8000, 8001, 8002)[n % 4]) as connection:
        if n % 3 == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if n % 5 == 0:
            connection.shutdown(socket.SHUT_WR)
print("done")
"""
    said, _ = await run(code, *(f"allowed.test:{port}" for port in (443, 8000, 8001, 8002)))
    assert said == "done\n"
    await until(lambda: open_in(relay_of(relayed)) <= before)


async def test_after_the_end_of_the_relay_there_is_another_one(isolation):
    code = "import sys\nprint(flush=True)\ninput()\nprint(said('allowed.test'))"
    launch = started(isolation, code, [ALLOWED])
    with launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        await asyncio.to_thread(process.stdout.readline)
        os.kill(relay_of(isolation), signal.SIGKILL)
        isolation._networks._relay._process.wait()
        assert process.communicate("\n")[0] == "Connection refused\n"
    assert await launch.end() == {"connections": {"error": "the relay has ended before it told them"}}
    with pytest.raises(Unreachable, match="the relay: "):
        started(isolation, "", [ALLOWED])
    launch = started(isolation, 'print(said("allowed.test"))', [ALLOWED])
    with launch.start(stdout=subprocess.PIPE, text=True) as process:
        assert (await asyncio.to_thread(process.communicate))[0] == f"{HELLO}\n"
    await launch.end()


def within(setting):
    """Start a program where such namespaces are used up."""
    script = f'echo 0 >/proc/sys/user/{setting} && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--", "sh", "-c", script, "sh")


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        (("/no/such/program",), "the relay: /no/such/program: No such file or directory"),
        (("true",), "the relay: it ended"),
        (within("max_user_namespaces"), "the relay: no user namespace can be made: No space left on device"),
        (within("max_net_namespaces"), "the relay: no network namespace can be made: No space left on device"),
    ],
)
async def test_where_hosts_cannot_be_told_apart_modules_that_need_it_are_refused_with_the_reason(
    works, log, module, prefix, why
):
    isolation = open_isolation({})
    isolation._networks.command = (*prefix, *isolation._networks.command)
    async with Kernel(event_log=log, isolation=isolation) as kernel:
        session = await kernel.session.create({"goal": "x"})
        await session.register_hook("policy:request", allow)
        with pytest.raises(Forbidden) as caught:
            await session.mount("/mnt/tools", module("echo.py", capabilities=["net:connect:a.test:1"]))
        assert f"bwrap cannot enforce net:connect:a.test:1 ({why}) on this host" in caught.value.message
        await session.mount("/mnt/tools", module("echo.py"))
        described = (await kernel.describe_host())["isolation"]
        assert described["refuses"] == [f"net:connect:HOST:PORT: {why}"]
        assert "net:connect:HOST:PORT" not in described["enforces"]


async def allow(event):
    return {"decision": "allow", "scope": "session"}


MODULE = """
import json, os, socket, sys
for line in sys.stdin:
    request = json.loads(line)
    told = {"name": "m", "kind": "tool", "capabilities": ["net:connect:*"], "inputs": {}, "outputs": {}}
    if request["method"] == "invoke":
        with socket.create_connection(("allowed.test", 443)) as connection:
            told = connection.recv(100).decode()
    result = {"health": {"status": "ok"}}.get(request["method"], told)
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""


async def test_policy_may_narrow_the_network_to_a_host_and_the_log_counts(isolation, log, events):
    async def narrow(event):
        return {"decision": "allow", "capabilities": [f"net:connect:{ALLOWED}"], "scope": "session"}

    transport = {"type": "stdio", "command": ["/usr/bin/python3", "-c", MODULE]}
    async with Kernel(event_log=log, isolation=isolation) as kernel:
        session = await kernel.session.create({"goal": "x"})
        await session.register_hook("policy:request", narrow)
        told = {"name": "m", "kind": "tool", "capabilities": ["net:connect:*"], "transport": transport}
        await session.mount("/mnt/tools", told)
        assert await session.invoke("/mnt/tools/m", "connect", {}) == f"{HELLO}\n"
        assert "net:connect:HOST:PORT" in (await kernel.describe_host())["isolation"]["enforces"]
    (start,) = events("module:start")
    assert start["data"]["network"] == [ALLOWED]
    (exited,) = events("module:exit")
    assert exited["data"]["connections"] == {ALLOWED: {"opened": 1, "received": 29}}


async def test_a_forked_process_does_not_hold_the_relay(isolation):
    launch = started(isolation, "", [ALLOWED])
    launch.close()
    await launch.end()
    relay = isolation._networks._relay
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    isolation.close()  # waits for the relay, which ends although the child lives
    assert relay._process.returncode == 0
    os.close(writing)
    os.waitpid(pid, 0)
