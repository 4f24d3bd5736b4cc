"""What the tests of the kit share: its module as a descriptor, as a bare process, and behind HTTP."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TRACING, missing_here

from amplifier_core import ModuleDescriptor

EVERYTHING = Path(__file__).parent / "everything.py"


class Process:
    """A module as a process, line by line."""

    def __init__(self, *arguments, program=EVERYTHING, interpreter=sys.executable, seconds=60):
        command = [interpreter, str(program), *arguments]
        self.popen: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.end_of_test = threading.Timer(seconds, self.popen.kill)
        self.end_of_test.start()

    def send(self, *messages):
        for message in messages:
            self.popen.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self.popen.stdin.flush()

    def invoke(self, key, op, args=None, **more):
        self.send({"id": key, "method": "invoke", "params": {"op": op, "args": args or {}, **more}})

    def read(self):
        return json.loads(self.popen.stdout.readline())

    def answer(self, op, args=None, key="a1", **more):
        self.invoke(key, op, args, **more)
        reply = self.read()
        assert reply.pop("id") == key
        return reply

    def end(self):
        """End stdin, and give what is left of stdout, and stderr."""
        rest, errors = self.popen.communicate(timeout=30)
        return [json.loads(line) for line in rest.splitlines()], errors.decode()


@pytest.fixture
def process(traced):
    """Start a module as a process, which ends with the test."""
    started = []

    def start(*arguments, **options):
        started.append(Process(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.popen.communicate(timeout=60)
        each.end_of_test.cancel()


@pytest.fixture
def command(traced):
    """What starts the module as a process of its own."""
    return [sys.executable, str(EVERYTHING)]


@pytest.fixture(scope="session")
def described(children_are_not_traced):
    """The descriptor that the module prints. The kernel hands on no variable that the descriptor does not have."""
    tracing = {TRACING: children_are_not_traced} if children_are_not_traced else {}
    command = [sys.executable, str(EVERYTHING), "--descriptor"]
    printed = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **tracing}).stdout
    descriptor = json.loads(printed)
    descriptor["transport"]["env"] = tracing
    return ModuleDescriptor.from_mapping(descriptor)


@pytest.fixture
async def approve():
    """Allow everything, as a policy hook."""

    async def decide(_event):
        return {"decision": "allow", "scope": "session"}

    return decide


@pytest.fixture
def need_import():
    """Require a package: where it is not installed, the test is skipped. In CI it fails."""

    def check(name):
        try:
            __import__(name)
        except ImportError:
            missing_here(f"{name} is not installed")

    return check
