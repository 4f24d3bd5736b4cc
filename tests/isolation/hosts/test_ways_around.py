"""Ways to another host than the one that was granted: each leads somewhere without the isolation, and nowhere with it.

All are tried in one process for each half, as a kernel's user and as an ordinary one.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.isolation.conftest import confine, python_for_all, start
from tests.isolation.hosts import attacks

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import _relay

PROGRAM = Path(attacks.__file__)
RELAY = Path(_relay.__file__).parent
NAMES = sorted(attacks.ALL)
HOSTS = ["allowed.test:443", *(f"{name}.test:{port}" for name, port in attacks.NAMES.items())]
WORDS = [f"net:connect:{host}" for host in HOSTS]
DESCRIPTOR = ModuleDescriptor.from_mapping(
    {"name": "m", "kind": "tool", "capabilities": WORDS, "transport": {"type": "stdio"}}
)
ROOT = {"raw", "packets", "take_an_address", "mark_packets", "any_address", "repair", "settings", "make_a_network"}
OF_THE_SYSTEM = {"ping", "by_multipath", "fast_open", "virtual_machine", "stream_control"}  # some Linux have it not


def outcomes(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def without(world):
    """Try all without the isolation, in the same network."""
    command = [*world.prefix, sys.executable, PROGRAM]
    env = os.environ | {"GIVEN": "yes"}
    return outcomes(subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env))


@pytest.fixture
def launched(isolation, ground):
    def launched(python):
        shutil.copy(PROGRAM, ground.code)
        wanted = Launch(command=(python, str(ground.code / PROGRAM.name)), cwd=str(ground.code), env={})
        return confine(isolation, wanted, DESCRIPTOR, DESCRIPTOR.capabilities)

    return launched


def test_there_are_forty_ways():
    assert len(NAMES) >= 40


def test_without_isolation_each_way_leads_somewhere(without):
    stopped = {name: told["stopped"] for name, told in without.items() if "stopped" in told}
    excused = OF_THE_SYSTEM | (ROOT if os.getuid() else set())
    assert {name: why for name, why in stopped.items() if name not in excused} == {}


async def test_with_the_isolation_none_leads_anywhere(launched):
    launch = launched(sys.executable)
    got = outcomes(await asyncio.to_thread(start, launch))
    assert sorted(got) == NAMES
    assert {name: told for name, told in got.items() if "got" in told} == {}
    counted = (await launch.end())["connections"]
    assert {host: counted[host]["refused"] for host in HOSTS[1:]} == dict.fromkeys(HOSTS[1:], 1)


async def test_nor_for_an_ordinary_user(isolation, as_nobody, launched, ground, world):
    """The relay is that user's too."""
    shutil.copytree(RELAY, ground.code / "_relay")
    python, words = python_for_all(), isolation._networks.command
    isolation._networks.command = (*world.prefix, *as_nobody, python, *words[words.index("-I") : -1], str(ground.code))
    launch = launched(python)
    got = outcomes(await asyncio.to_thread(start, launch, prefix=as_nobody))
    await launch.end()
    assert sorted(got) == NAMES
    assert {name: told for name, told in got.items() if "got" in told} == {}
