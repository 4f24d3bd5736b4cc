"""Over any other transport, the check looks at what its connection hands on."""

import pytest
from tests.conftest import missing_here
from tests.core.conftest import site  # noqa: F401  a fixture

SOURCE = """
import asyncio

from amplifier_core import Internal, Unreachable, UnsupportedOp
from amplifier_core.hookspecs import Connection, Launch, Message, decode, hookimpl


class Odd(Connection):
    unenforced = ()

    def __init__(self, descriptor):
        self.local = descriptor.transport.get("local", False)
        self._flaw = descriptor.transport["flaw"]

    def launch(self):
        return Launch(command=("/bin/true",), cwd="/", env={})

    async def start(self, granted, confinement):
        if self._flaw == "start":
            raise Unreachable("nobody is there")

    async def request(self, method, params, chunks=None):
        await asyncio.sleep(0)
        if self._flaw == "absent":
            raise Unreachable("nobody listens")
        if method == "health":
            return Message(ok=True, result={"status": "ok"})
        if method == "describe":
            told = {"name": "odd", "kind": "tool", "version": "1.0.0", "capabilities": []}
            return Message(ok=True, result={**told, "inputs": {"run": True}, "outputs": {"run": True}})
        if decode(params)["op"] != "run":
            raise UnsupportedOp("no such op")
        if self._flaw == "streamed" and chunks:
            return Message(ok=True)
        if self._flaw == "silent":
            await asyncio.sleep(60)
        if self._flaw == "broken":
            raise Internal("the module broke its contract")
        if self._flaw == "gone":
            raise Unreachable("the module went away")
        return Message(ok=True, result={})

    def clues(self):
        return {"stderr": "out of luck"}

    async def close(self):
        pass


@hookimpl
def open_transport(descriptor):
    return Odd(descriptor)
"""


@pytest.fixture
def odd(site, check):  # noqa: F811
    site.install("amplifier_core.transports", "odd", SOURCE)

    def run(flaw, *words, **transport):
        told = {"name": "odd", "kind": "tool", "capabilities": []}
        return check({**told, "transport": {"type": "odd", "flaw": flaw, **transport}}, "--op", "run={}", *words)

    return run


@pytest.mark.parametrize(("flaw", "rule"), [("silent", "MSG-01"), ("broken", "MSG-02"), ("gone", "CONN-01")])
def test_what_a_connection_reports_is_found(odd, flaw, rule):
    checked = odd(flaw, "--timeout", "0.5")
    assert checked.ids == [rule]
    assert checked.finding(rule)["stderr"] == "out of luck"


def test_chunks_may_go_another_way_that_is_not_sound(odd):
    assert odd("streamed").ids == ["MSG-02"]


def test_a_sound_module_elsewhere_is_sound(odd):
    checked = odd("none", "--strict")
    assert checked.ids == []
    assert checked.report["runs_as"] == "elsewhere: nothing here confines it"


def test_a_module_that_does_not_start_could_not_be_checked(odd):
    checked = odd("start")
    assert checked.status == 2
    assert "nobody is there" in checked.stderr


def test_a_module_elsewhere_that_is_not_there_could_not_be_checked(odd):
    checked = odd("absent")
    assert (checked.status, checked.stderr.count("\n")) == (2, 1)
    assert "could not be run: unreachable: nobody listens" in checked.stderr


def test_a_local_one_is_confined_or_trusted(odd, need):
    need("bwrap")
    confined = odd("none", "--isolation", "bwrap", local=True)
    if confined.status == 2:
        missing_here(confined.stderr)
    assert confined.report["runs_as"].startswith("confined by bwrap")
    assert odd("none", "--trusted", local=True).report["runs_as"].startswith("trusted")
    refused = odd("none", "--isolation", "nonsense", local=True)
    assert refused.status == 2
    assert "nonsense" in refused.stderr
