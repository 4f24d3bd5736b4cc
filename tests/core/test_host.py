"""The choice of an isolation: by name, by trial, or none; the calls to it, and each fault of a plugin."""

import asyncio
import importlib.metadata
import os
import sys
import threading

import pytest

from amplifier_core import BadRequest, Forbidden, Internal, Kernel, Plan, Timeout, Unreachable
from amplifier_core.hookspecs import ISOLATIONS, Launch
from amplifier_core.testing import confine

ECHO = "/mnt/tools/echo"
ISOLATION = """
import os
from pathlib import Path
from msgspec.structs import replace
from amplifier_core import Unreachable
from amplifier_core.hookspecs import hookimpl

TRIALS = Path(__file__).with_suffix(".trials")


class Env:
    \"\"\"Confines nothing; what it was asked is in the environment of what is started, and on a descriptor.\"\"\"

    name = "env"
    confines = ("files", "network", "environment", "processes")

    def __init__(self, options):
        self._options = options

    def trial(self):
        with TRIALS.open("a") as trials:
            trials.write("x")
        return self._options.get("reason", "")

    def describe(self):
        return {"enforces": ["env"]}

    def unenforced(self, capabilities):
        assert not [word for word in capabilities if word.startswith(("sys:", "x-"))]
        return tuple(word for word in capabilities if word.startswith("net:"))

    def plan(self, launch, descriptor):
        return Confined(descriptor)


class Confined:
    def __init__(self, descriptor):
        self.shown = {"read": list(descriptor.capabilities)}

    def confine(self, launch, granted):
        reading, writing = os.pipe()
        os.close(writing)
        env = {**launch.env, "GRANTED": " ".join(granted), "FD": str(reading)}
        command = ("/usr/bin/env", *launch.command)
        return replace(launch, command=command, env=env, fds=(reading,), shown={"read": list(granted)})


@hookimpl
def open_isolation(options):
    return Env(options)
"""


@pytest.fixture
def alone(monkeypatch):
    """Leave only those isolations installed that the test installs."""
    real = importlib.metadata.entry_points

    def those(*, group):
        ours = group == ISOLATIONS
        kept = [point for point in list(real(group=group)) if not ours or (point.dist and "outside" in point.dist.name)]
        return importlib.metadata.EntryPoints(kept)

    monkeypatch.setattr(importlib.metadata, "entry_points", those)


@pytest.fixture
def opened(log):
    """Open a kernel with an isolation, and a session in it."""
    kernels = []

    async def start(isolation):
        kernel = Kernel(event_log=log, isolation=isolation)
        kernels.append(kernel)
        await kernel.__aenter__()
        return kernel, await kernel.session.create(Plan("x"))

    yield start
    assert all(kernel._closed for kernel in kernels)


async def allow(event):
    return {"decision": "allow", "scope": "session"}


async def test_an_isolated_module_starts_with_the_command_of_the_isolation(site, opened, module, events, tmp_path):
    installed = site.install(ISOLATIONS, "env", ISOLATION)
    kernel, session = await opened("env")
    asked = []

    async def narrow(event):
        asked.append(event.data)
        return {"decision": "allow", "capabilities": [f"fs:read:{tmp_path}/below"], "scope": "session"}

    await session.register_hook("policy:request", narrow)
    for name in ("echo", "other"):
        descriptor = module("echo.py", name=name, capabilities=[f"fs:read:{tmp_path}"])
        await session.mount("/mnt/tools", descriptor)
    env = await session.invoke(ECHO, "env", {})
    assert env["GRANTED"] == f"fs:read:{tmp_path}/below"
    assert asked[0]["unenforced"] == []
    assert "trusted" not in asked[0]
    assert asked[0]["args"]["isolation"] == {"name": "env", "read": [f"fs:read:{tmp_path}"]}
    assert events("module:start")[0]["data"]["read"] == [f"fs:read:{tmp_path}/below"]
    assert await kernel.describe_host() == {
        "platform": sys.platform,
        "isolation": {"name": "env", "confines": ["files", "network", "environment", "processes"], "enforces": ["env"]},
        "unusable": {},
        "transports": {
            "stdio": {
                "budgets": "measured with proc",
                "trees": "ended by process group",
                "orphans": "found by their mark",
            }
        },
    }
    await kernel.close()
    assert site.read("trials", installed) == "x"


async def test_a_trusted_module_is_not_isolated(site, opened, module):
    installed = site.install(ISOLATIONS, "env", ISOLATION)
    kernel, session = await opened("env")
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    assert "GRANTED" not in await session.invoke(ECHO, "env", {})
    await kernel.close()
    assert not site.was("trials", installed)


async def test_what_an_isolation_cannot_enforce_refuses_the_module_unless_policy_alone_decides(site, opened, module):
    site.install(ISOLATIONS, "env", ISOLATION)
    kernel, session = await opened({"type": "env"})
    await session.register_hook("policy:request", allow)
    with pytest.raises(Forbidden, match=r"env cannot enforce net:connect:\* on this host; .*trusted=True") as caught:
        await session.mount("/mnt/tools", module("echo.py", capabilities=["net:connect:*", "env:HOME"]))
    assert caught.value.details["capabilities"] == ["net:connect:*"]
    await session.mount("/mnt/tools", module("echo.py", capabilities=["x-billing:spend", "sys:emit"]))
    await kernel.close()


@pytest.mark.parametrize(
    ("installed", "why"),
    [
        (ISOLATION.replace('return self._options.get("reason", "")', 'return "no luck"'), "no luck"),
        ("raise OSError('broken')", "isolation 'env' of outside-env fails to import: OSError: broken"),
        (ISOLATION.replace("return Env(options)", "return None"), "the plugin opens nothing for the given options"),
        (ISOLATION.replace("def unenforced(", "def unforced("), "the plugin opened Env, which has no unenforced"),
        (ISOLATION.replace("    confines = ", "    confined = "), "the plugin opened Env, which has no confines"),
        (
            ISOLATION.replace('confines = ("files",', 'confines = ("disks",'),
            "confines: expected some of files, network,",
        ),
        (
            ISOLATION.replace('("files", "network", "environment", "processes")', '"files"'),
            "confines: expected some of",
        ),
        (ISOLATION.replace('with TRIALS.open("a") as trials:', "if 1 / 0:"), "ZeroDivisionError: division by zero"),
    ],
)
async def test_the_only_isolation_is_used_if_it_works_and_says_what_it_confines(
    site, alone, opened, module, installed, why
):
    site.install(ISOLATIONS, "env", installed)
    kernel, session = await opened(None)
    assert why in (await kernel.describe_host())["unusable"]["env"]
    with pytest.raises(Forbidden, match="no isolation confines a local module on this host"):
        await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()


async def test_the_only_isolation_is_tried_once_and_taken(site, alone, opened, module):
    installed = site.install(ISOLATIONS, "env", ISOLATION)
    kernel, session = await opened(None)
    await asyncio.gather(*(kernel.describe_host() for _ in range(3)), session.mount("/mnt/tools", module("echo.py")))
    assert (await kernel.describe_host())["isolation"]["name"] == "env"
    await kernel.close()
    assert site.read("trials", installed) == "x"


async def test_of_several_isolations_one_has_to_be_named(site, alone, opened, module):
    """One that confines little would weaken the others' in silence, by its place in the alphabet."""
    strong, weak = (site.install(ISOLATIONS, name, ISOLATION) for name in ("strong", "a-weak-one"))
    kernel, session = await opened(None)
    with pytest.raises(Forbidden) as caught:
        await session.mount("/mnt/tools", module("echo.py"))
    assert caught.value.message == (
        f"{ECHO}: isolations a-weak-one and strong are installed, and none is named: name one with "
        "Kernel(isolation=...), or call mount(..., trusted=True) to run it as an ordinary process"
    )
    assert list((await kernel.describe_host())["unusable"]) == ["a-weak-one", "strong"]
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await kernel.close()
    assert not site.was("trials", strong)
    assert not site.was("trials", weak)
    kernel, session = await opened("strong")
    await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()


async def test_in_what_a_module_is_not_confined_is_unenforced_whatever_it_declares(site, opened, module, events):
    says = 'confines = ("files", "network", "environment", "processes")'
    site.install(ISOLATIONS, "env", ISOLATION.replace(says, 'confines = ["network"]'))
    kernel, session = await opened("env")
    asked = []

    async def judge(event):
        asked.append(event.data)
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", judge)
    await session.mount("/mnt/tools", module("echo.py"))
    loose = ["isolation.files", "isolation.environment", "isolation.processes"]
    assert asked[0]["unenforced"] == events("mount:add")[0]["data"]["unenforced"] == loose
    assert (await kernel.describe_host())["isolation"]["confines"] == ["network"]
    with pytest.raises(Forbidden, match="env cannot enforce env:HOME on this host"):
        await session.mount("/mnt/tools", module("echo.py", name="home", capabilities=["env:HOME"]))
    await kernel.close()


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (False, "the embedder set isolation=False"),
        ({"type": "env", "reason": "not here"}, "env: not here"),
        ("none-such", "none-such: isolation 'none-such' is not installed"),
    ],
)
async def test_without_an_isolation_a_local_module_is_refused_with_the_remedies(site, opened, module, chosen, why):
    site.install(ISOLATIONS, "env", ISOLATION)
    kernel, session = await opened(chosen)
    with pytest.raises(Forbidden) as caught:
        await session.mount("/mnt/tools", module("echo.py"))
    assert f"{ECHO}: no isolation confines a local module on this host ({why}" in caught.value.message
    assert "install amplifier-isolation-bwrap, or call mount(..., trusted=True)" in caught.value.message
    assert "\n" not in caught.value.message
    await kernel.close()


@pytest.mark.parametrize("chosen", [True, 5, {"type": 5}, {}, ["bwrap"]])
def test_an_argument_that_names_no_isolation_is_refused(chosen):
    with pytest.raises(BadRequest, match="isolation: expected a name, an object whose type is text, False or None"):
        Kernel(isolation=chosen)


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        ("raise Unreachable('command x: not there')", Unreachable, "command x: not there"),
        ("raise OSError('no pipe')", Internal, "isolation 'env' raised OSError: no pipe"),
        ("return None", Internal, "isolation 'env' planned NoneType, which has no confine"),
    ],
)
async def test_an_isolation_that_fails_fails_the_mount(site, opened, module, body, error, said):
    site.install(ISOLATIONS, "env", ISOLATION.replace("return Confined(descriptor)", body))
    kernel, session = await opened("env")
    with pytest.raises(error) as caught:
        await session.mount("/mnt/tools", module("echo.py"))
    assert said in caught.value.message
    await kernel.close()


async def test_a_plan_that_does_not_end_is_given_up_at_the_deadline(site, opened, module):
    """It may read files, and one on a file system that hangs is nothing that anybody can end."""
    waiting = "(Path(__file__).with_suffix('.fifo')).open().close(); return Confined(descriptor)"
    installed = site.install(ISOLATIONS, "env", ISOLATION.replace("return Confined(descriptor)", waiting))
    os.mkfifo(fifo := site.path("fifo", installed))
    kernel, session = await opened("env")
    before = set(threading.enumerate())
    with pytest.raises(Timeout, match=f"mounting {ECHO}"):
        await session.mount("/mnt/tools", module("echo.py"), timeout=0.2)
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)  # the loop went on, and the name is free again
    await kernel.close()
    (thread,) = (thread for thread in set(threading.enumerate()) - before if thread.daemon)
    fifo.open("w").close()
    thread.join()


async def test_what_a_module_mounts_is_planned_only_after_policy_has_allowed_it(site, opened, module):
    planned = "(Path(__file__).with_suffix('.plans')).touch(); return Confined(descriptor)"
    installed = site.install(ISOLATIONS, "env", ISOLATION.replace("return Confined(descriptor)", planned))
    kernel, session = await opened("env")
    allowed = {"/mnt/agents/caller"}  # its calls
    asked = []

    async def judge(event):
        asked.append((event.data["path"], event.data["args"].get("isolation")))
        return {"decision": "allow" if event.data["path"] in allowed else "deny", "scope": "session"}

    await session.register_hook("policy:request", judge)
    await session.mount("/mnt/agents", module("caller.py", kind="agent", capabilities=["sys:mount"]), trusted=True)
    told = module("echo.py")
    descriptor = {"name": "echo", "kind": "tool", "capabilities": [], "transport": dict(told.transport)}
    call = {"name": "mount", "args": {"path": "/mnt/tools", "descriptor": descriptor}}
    (denied,) = (await session.invoke("/mnt/agents/caller", "call", {"syscalls": [call]}))["results"]
    assert denied["error"]["code"] == "forbidden"
    assert not site.was("plans", installed)
    allowed.add(ECHO)
    (mounted,) = (await session.invoke("/mnt/agents/caller", "call", {"syscalls": [call]}))["results"]
    assert mounted["ok"] is True
    assert site.was("plans", installed)
    assert asked[-1] == (ECHO, {"name": "env"})
    await kernel.close()


async def test_a_module_is_planned_once_and_started_from_the_plan_each_time(site, opened, module):
    planned = "os.mkdir(Path(__file__).with_suffix('.plans')); return Confined(descriptor)"
    installed = site.install(ISOLATIONS, "env", ISOLATION.replace("return Confined(descriptor)", planned))
    kernel, session = await opened("env")
    await session.mount("/mnt/tools", module("echo.py"))
    with pytest.raises(Unreachable):
        await session.invoke(ECHO, "exit", {"code": 1})
    assert "GRANTED" in await session.invoke(ECHO, "env", {})
    await kernel.close()
    assert site.was("plans", installed)  # a second plan could not have made it again


async def test_descriptors_are_closed_even_if_the_command_is_not_there(site, opened, module):
    site.install(ISOLATIONS, "env", ISOLATION.replace("/usr/bin/env", "/no/such"))
    kernel, session = await opened("env")
    with pytest.raises(Unreachable, match="command /no/such"):
        await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()


async def test_a_kernel_closes_only_after_a_trial_has_ended(site, opened):
    slow = "import time; time.sleep(0.3)\n        with TRIALS"
    installed = site.install(ISOLATIONS, "env", ISOLATION.replace("with TRIALS", slow))
    kernel, _ = await opened("env")
    asking = asyncio.create_task(kernel.describe_host())
    await asyncio.sleep(0)
    asking.cancel()
    await kernel.close()
    assert site.read("trials", installed) == "x"


async def test_a_shared_object_is_made_once_and_closed_even_if_that_raises(kernel):
    closed = []

    class Thing:
        async def close(self):
            closed.append(self)
            raise RuntimeError

    host = kernel._host
    thing = host.shared(Thing)
    assert host.shared(Thing) is thing
    await kernel.close()
    assert closed == [thing]


async def test_a_check_of_a_module_confines_it_as_the_kernel_does(site, module):
    says = 'confines = ("files", "network", "environment", "processes")'
    site.install(ISOLATIONS, "env", ISOLATION.replace(says, 'confines = ["network"]'))
    descriptor = module("echo.py", capabilities=["env:HOME", "x-a:b"])
    launch = Launch(command=("true",), cwd="/", env={})
    with pytest.raises(Forbidden, match="env cannot enforce env:HOME on this host"):
        await confine(launch, descriptor, isolation="env")
    isolation, confinement = await confine(launch, module("echo.py"), isolation="env")
    confined = confinement.confine(launch, ())
    assert (isolation.name, confined.command) == ("env", ("/usr/bin/env", "true"))
    confined.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "isolation 'env' broke its contract: confine gave NoneType, expected a Launch"),
        ("return launch.command", "isolation 'env' broke its contract: confine gave tuple, expected a Launch"),
        ("raise OSError('no pipe')", "isolation 'env' raised OSError: no pipe"),
    ],
)
async def test_what_an_isolation_does_not_confine_is_not_started(site, opened, module, events, body, said):
    site.install(ISOLATIONS, "env", ISOLATION.replace("        reading, writing = os.pipe()", f"        {body}"))
    kernel, session = await opened("env")
    with pytest.raises(Internal) as caught:
        await session.mount("/mnt/tools", module("echo.py"))
    assert said in caught.value.message
    assert events("module:start") == []
    await kernel.close()


async def test_an_isolation_may_refuse_a_launch(site, opened, module):
    refuses = "        raise Unreachable('it was replaced')"
    site.install(ISOLATIONS, "env", ISOLATION.replace("        reading, writing = os.pipe()", refuses))
    kernel, session = await opened("env")
    with pytest.raises(Unreachable, match="it was replaced"):
        await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()
