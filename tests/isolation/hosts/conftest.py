"""A small Internet, and an isolation whose relay is in it."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from tests.conftest import TRACING, missing_here
from tests.isolation.conftest import SMALL, confine, start

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import open_isolation

NAMES = """
127.0.0.1 localhost rebind.test both.test
93.184.216.34 allowed.test both.test
93.184.216.35 other.test
93.184.216.99 own.test
10.0.0.5 private.test
10.99.0.1 interface.test
169.254.169.254 metadata.test
168.63.129.16 azure.test
100.64.0.1 carrier.test
::1 rebind6.test
2606:4700::34 six.test
fd00:ec2::254 metadata6.test
::ffff:127.0.0.1 mapped.test
64:ff9b::7f00:1 nat64.test
64:ff9b::5db8:d822 allowed64.test
64:ff9b::5db8:d863 own64.test
2002:7f00:1::1 sixtofour.test
0.0.0.0 zero.test
224.0.0.1 all.test
"""

HEAD = """
import socket
def connect(host, port):
    return socket.create_connection((host, port), 10)
def said(host, port=443):
    try:
        with connect(host, port) as connection:
            return connection.recv(100).decode().strip()
    except OSError as error:
        return error.strerror or str(error)
"""
"""What the programs in the sandboxes begin with."""


class World:
    """The small Internet while it runs. ``prefix``: the words that start a program in it."""

    def __init__(self, folder, pid, own_user):
        self.folder = folder
        self.hosts = folder / "hosts"
        user = [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"] if own_user else []
        self.prefix = ("nsenter", *user, f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", "--")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Start the small Internet, once."""
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        missing_here("ip of iproute2, or nsenter of util-linux, is not installed")
    folder = tmp_path_factory.mktemp("world")
    folder.joinpath("hosts").write_text(NAMES)
    folder.joinpath("nsswitch.conf").write_text("hosts: files\n")
    authority = trustme.CA()
    authority.issue_cert("allowed.test").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    own_user = os.getuid() != 0
    user = ["--user", "--map-root-user"] if own_user else []
    program = Path(__file__).with_name("world.py")
    command = ["unshare", "--net", "--mount", *user, "--", sys.executable, program, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        if process.stdout.readline() != b"ready\n":
            missing_here("no network namespace can be made here")
        yield World(folder, process.pid, own_user)
        process.stdin.close()


def in_world(isolation, world):
    """Have the relay of an isolation run in the small Internet."""
    isolation._networks.command = (*world.prefix, *isolation._networks.command)
    return isolation


@pytest.fixture
def isolation(isolation, world):
    """Return an isolation with small limits whose relay is in the small Internet."""
    yield in_world(isolation, world)
    isolation.close()


@pytest.fixture(scope="module")
def relayed(works, world, children_are_not_traced):
    """Return an isolation whose relay runs, and is measured for coverage. Its bounds are small."""
    if works:
        missing_here(works)
    isolation = in_world(open_isolation({**SMALL, "connections": 4, "idle_seconds": 2}), world)
    networks = isolation._networks
    if children_are_not_traced:
        networks.command = tuple(word for word in networks.command if word not in ("-I", "-S"))
        networks.env = os.environ | {TRACING: children_are_not_traced}
    assert isolation.trial() == ""
    assert isolation.unenforced(["net:connect:allowed.test:443"]) == ()  # which starts the relay
    yield isolation
    isolation.close()


def started(isolation, code, hosts, more=()):
    """Confine Python in a sandbox that may connect to these hosts."""
    words = [*(f"net:connect:{host}" for host in hosts), *more]
    descriptor = ModuleDescriptor.from_mapping(
        {"name": "m", "kind": "tool", "capabilities": words, "transport": {"type": "stdio"}}
    )
    command = ("/usr/bin/python3", "-I", "-S", "-c", HEAD + code) if isinstance(code, str) else tuple(code)
    launch = Launch(command=command, cwd="/", env={"PATH": os.environ["PATH"]})
    return confine(isolation, launch, descriptor, descriptor.capabilities)


@pytest.fixture
def run(relayed):
    """Run Python, or another command, in such a sandbox; give what it printed, and what was counted."""

    async def run(code, *hosts, more=()):
        launch = started(relayed, code, hosts, more)
        done = await asyncio.to_thread(start, launch)
        told = await launch.end()
        return done.stdout + done.stderr, told["connections"]

    return run
