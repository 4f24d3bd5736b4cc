"""A module that runs without a kernel, for a program that serves it to kernels elsewhere."""

import asyncio
import json
import sys
from types import MappingProxyType

import pytest

from amplifier_core import BudgetExceeded, Forbidden, Internal, KernelError, ModuleDescriptor, Timeout, Unreachable
from amplifier_core.hookspecs import Chunks, Confinement, Isolation
from amplifier_core.hosting import HostedModule
from amplifier_transport_inproc import descriptor_of

EVERYWHERE = ("files", "network", "environment", "processes")


class Confined(Confinement):
    shown = MappingProxyType({})

    def confine(self, launch, granted):
        return launch


class Everything(Isolation):
    name = "everything"
    confines: tuple[str, ...] = EVERYWHERE
    cannot: tuple[str, ...] = ()

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return tuple(word for word in capabilities if word in self.cannot)

    def plan(self, launch, descriptor):
        return Confined()


class Sick:
    def describe(self):
        return {"name": "m", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}

    async def health(self):
        return {"status": "tired"}

    async def invoke(self, op, args, context):
        return None


def params(op, **args):
    return json.dumps({"op": op, "args": args}).encode()


async def test_a_trusted_process_is_served(module):
    heard = []
    described = module("echo.py", name="m", capabilities=["net:connect:*"])
    async with HostedModule(described, trusted=True, notify=lambda event, *_: heard.append(event)) as hosted:
        assert json.loads(hosted.description)["name"] == "m"
        assert (hosted.isolation, hosted.unenforced, hosted.capabilities) == (
            None,
            ("net:connect:*",),
            ("net:connect:*",),
        )
        assert (await hosted.request("invoke", params("echo", n=1))).result == {"n": 1}
        with pytest.raises(Unreachable):
            await hosted.request("invoke", params("exit", code=3))
        assert (await hosted.request("invoke", params("echo", n=2), Chunks())).result == {"n": 2}
        assert isinstance(hosted.clues(), dict)
    assert heard == ["module:start", "module:exit", "module:start", "module:exit"]


async def test_a_request_has_a_time(module):
    async with HostedModule(module("echo.py"), trusted=True) as hosted:
        with pytest.raises(Timeout, match="echo invoke: no answer within 0.1 s"):
            await hosted.request("invoke", params("sleep", seconds=20), seconds=0.1)


async def test_an_isolation_confines_it(module):
    isolation = Everything()
    async with HostedModule(
        module("echo.py", capabilities=["fs:read:/srv", "sys:mounts"]), isolation=isolation
    ) as hosted:
        assert (hosted.isolation, hosted.unenforced) == ("everything", ())
    isolation.confines = ("files",)
    async with HostedModule(module("echo.py"), isolation=isolation) as hosted:
        assert hosted.unenforced == ("isolation.network", "isolation.environment", "isolation.processes")


async def test_what_the_isolation_cannot_enforce_refuses_it(module):
    isolation = Everything()
    isolation.cannot = ("net:connect:*",)
    hosted = HostedModule(module("echo.py", capabilities=["net:connect:*"]), isolation=isolation)
    with pytest.raises(Forbidden, match=r"echo: everything cannot enforce net:connect:\* on this host"):
        await hosted.start()


async def test_a_plan_that_fails_names_the_isolation(module):
    class Broken(Everything):
        def plan(self, launch, descriptor):
            raise OSError("no disk")

    with pytest.raises(Internal, match="isolation 'everything'"):
        await HostedModule(module("echo.py"), isolation=Broken()).start()


async def test_without_an_isolation_only_a_trusted_one_runs(module):
    with pytest.raises(Forbidden, match="no isolation confines"):
        await HostedModule(module("echo.py"), isolation=False).start()
    with pytest.raises(Forbidden, match="runs in the process of the kernel"):
        await HostedModule(descriptor_of(Sick()), isolation=False).start()


async def test_one_that_is_not_well_does_not_start():
    with pytest.raises(Unreachable, match="health: expected"):
        await HostedModule(descriptor_of(Sick()), trusted=True).start()


async def test_one_that_says_nothing_does_not_start():
    program = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "command": program}}
    with pytest.raises(Timeout, match="starting m: no answer within 0.5 s"):
        await HostedModule(ModuleDescriptor.from_mapping(fields), trusted=True).start(0.5)


async def test_its_budget_is_kept(module):
    described = module("hog.py", name="hog", limits={"cpu_ms": 200})
    async with HostedModule(described, trusted=True) as hosted:
        with pytest.raises(BudgetExceeded):
            await hosted.request("invoke", params("burn", milliseconds=20_000))


async def test_it_can_be_closed_twice(module):
    await HostedModule(module("echo.py"), trusted=True).close()
    hosted = HostedModule(module("echo.py"), trusted=True)
    await hosted.start()
    await hosted.close()
    await hosted.close()
    with pytest.raises(KernelError):
        await hosted.request("invoke", params("echo"))
    await asyncio.sleep(0)
