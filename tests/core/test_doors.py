"""The public modules of the core, as plugins, and programs without a kernel, use them."""

import importlib
import pydoc

import pytest

from amplifier_core import Internal, Kernel, Plan, Timeout
from amplifier_core.hookspecs import TRANSPORTS, Host

DOORS = (
    "amplifier_core",
    "amplifier_core.hookspecs",
    "amplifier_core.testing",
    "amplifier_transport_http",
    "amplifier_transport_inproc",
    "amplifier_transport_stdio",
)
NAMES = [(door, name) for door in DOORS for name in importlib.import_module(door).__all__]


@pytest.mark.parametrize("door", DOORS)
def test_help_shows_a_door_with_all_its_names(door):
    text = pydoc.plain(pydoc.render_doc(door))
    assert all(name in text for name in importlib.import_module(door).__all__)


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_help_shows_each_public_name_with_its_meaning(door, name):
    assert name in pydoc.plain(pydoc.render_doc(f"{door}.{name}"))
    value = getattr(importlib.import_module(door), name)
    if isinstance(value, type) or callable(value):
        assert (value.__doc__ or "").strip(), f"{door}.{name} has no docstring"


DERIVED = """
from amplifier_core.hookspecs import Connection, Message, hookimpl


class Here(Connection):
    unenforced = ()

    def __init__(self, descriptor, *, local):
        self.local = local
        self._descriptor = descriptor

    async def start(self, granted, isolation):
        pass

    async def request(self, method, params, chunks=None):
        described = {"name": self._descriptor.name, "kind": self._descriptor.kind, "inputs": {}, "outputs": {}}
        return Message(ok=True, result={"status": "ok", **described, "capabilities": []})

    async def close(self):
        pass


@hookimpl
def open_transport(descriptor):
    return Here(descriptor, local=descriptor.transport["local"])
"""


def over(transport, *, local, **fields):
    transport = {"type": transport, "local": local}
    return {"name": "m", "kind": "tool", "capabilities": [], "transport": transport, **fields}


async def test_a_connection_has_defaults_for_methods_that_it_leaves_out(site, session, events):
    site.install(TRANSPORTS, "derived", DERIVED)
    limits = {"memory_bytes": 1000, "cpu_ms": 1000, "timeout_ms": 1000}
    await session.mount("/mnt/tools", over("derived", local=False, limits=limits))
    assert (await session.invoke("/mnt/tools/m", "any", {}))["status"] == "ok"
    (added,) = events("mount:add")
    assert added["data"]["unenforced"] == ["limits.memory_bytes", "limits.cpu_ms"]


SHAPED = DERIVED.replace("(Connection)", "")


async def test_a_connection_need_not_derive_from_the_base_class(site, session):
    site.install(TRANSPORTS, "shaped", SHAPED)
    await session.mount("/mnt/tools", over("shaped", local=False))
    assert (await session.invoke("/mnt/tools/m", "any", {}))["status"] == "ok"


MEASURED = SHAPED.replace("import Connection, Message", "import Message, Usage").replace(
    "    async def close(self):",
    """    def clues(self):
        return {"stderr": "thinking"}

    def usage(self, *, exact):
        return Usage(cpu_ms=0.0, memory_bytes=10)

    def kill(self, error):
        self.error = error

    async def close(self):""",
)


async def test_what_a_connection_of_the_same_shape_measures_keeps_a_budget(site, session, events):
    site.install(TRANSPORTS, "measured", MEASURED)
    limits = {"memory_bytes": 1000, "cpu_ms": 1000}
    await session.mount("/mnt/tools", {**over("measured", local=False, limits=limits), "name": "small"})
    (added,) = events("mount:add")
    assert "unenforced" not in added["data"]


async def test_the_clues_of_a_connection_of_the_same_shape_are_in_a_timeout(site, session):
    begins = "        described = {"
    slow = MEASURED.replace(begins, f"        await asyncio.sleep(60 * (method == 'invoke'))\n{begins}")
    site.install(TRANSPORTS, "slow", "import asyncio\n" + slow)
    await session.mount("/mnt/tools", over("slow", local=False))
    with pytest.raises(Timeout) as caught:
        await session.invoke("/mnt/tools/m", "any", {}, timeout=0.05)
    assert caught.value.details["stderr"] == "thinking"


@pytest.mark.parametrize("missing", ["usage", "kill"])
async def test_a_connection_that_cannot_both_measure_and_kill_keeps_no_budget(site, session, events, missing):
    site.install(TRANSPORTS, "half", MEASURED.replace(f"def {missing}(", f"def no_{missing}("))
    await session.mount("/mnt/tools", over("half", local=False, limits={"memory_bytes": 1000}))
    (added,) = events("mount:add")
    assert added["data"]["unenforced"] == ["limits.memory_bytes"]


@pytest.mark.parametrize("source", [DERIVED, SHAPED], ids=["derived", "shaped"])
async def test_a_local_connection_without_launch_is_refused(site, log, source):
    site.install(TRANSPORTS, "local", source)
    site.install("amplifier_core.isolations", "any", ISOLATION)
    async with Kernel(event_log=log, isolation="any") as kernel:
        session = await kernel.session.create(Plan("x"))
        with pytest.raises(Internal, match="Here.* is local.* has no launch"):
            await session.mount("/mnt/tools", over("local", local=True))


ISOLATION = """
from amplifier_core.hookspecs import Confinement, Isolation, hookimpl


class Plain(Confinement):
    shown = {}

    def confine(self, launch, granted):
        return launch


class Any(Isolation):
    name = "any"
    confines = ("files", "network", "environment", "processes")

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return ()

    def plan(self, launch, descriptor):
        return Plain()


@hookimpl
def open_isolation(options):
    return Any()
"""


async def test_an_isolation_need_not_describe_itself(site, log):
    site.install("amplifier_core.isolations", "any", ISOLATION)
    async with Kernel(event_log=log, isolation="any") as kernel:
        assert (await kernel.describe_host())["isolation"] == {
            "name": "any",
            "confines": ["files", "network", "environment", "processes"],
        }


class Shared:
    closed = 0

    async def close(self):
        self.closed += 1
        raise OSError("it is gone already")


async def test_a_program_without_a_kernel_has_a_host_that_closes_what_is_shared():
    async with Host() as host:
        one = host.shared(Shared)
        assert host.shared(Shared) is one
    assert one.closed == 1
    await host.close()
    assert one.closed == 1
