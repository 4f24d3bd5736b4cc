"""What an isolation has for a process outside of it ends with the process, and what it has for all with the kernel.

And several isolations in one kernel: each mount has the one that its embedder names.
"""

import asyncio
import sys
from types import MappingProxyType

import pytest
from tests.conftest import missing_here

from amplifier_core import BadRequest, Forbidden, Kernel, Unreachable
from amplifier_core.hookspecs import AREAS, Confinement, Isolation, Launch

ECHO = "/mnt/tools/echo"


class Ledger(Isolation):
    """Confines nothing, and keeps account of what it began and ended."""

    confines = AREAS

    def __init__(self, name="ledger", end=None, unenforced=(), why=""):
        self.name = name
        self.begun, self.ended, self.closed = 0, 0, 0
        self._end = end
        self._unenforced, self._why = unenforced, why

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return tuple(word for word in capabilities if word in self._unenforced)

    def why_unenforced(self, capability):
        return self._why(capability) if callable(self._why) else self._why or super().why_unenforced(capability)

    def plan(self, launch, descriptor):
        return Entry(self)

    def describe(self):
        return {"begun": self.begun}

    def close(self):
        self.closed += 1

    async def end(self):
        self.ended += 1
        return await self._end() if self._end else {"box": self.ended}


class Entry(Confinement):
    shown = MappingProxyType({})

    def __init__(self, ledger):
        self._ledger = ledger

    def confine(self, launch, granted):
        self._ledger.begun += 1
        fields = {"command": launch.command, "cwd": launch.cwd, "env": launch.env}
        return Launch(**fields, end=self._ledger.end, shown={"isolation": self._ledger.name})


@pytest.fixture
async def opened(log):
    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    kernels = []

    async def open_kernel(**choices):
        kernel = await Kernel(event_log=log, **choices).open()
        kernels.append(kernel)
        session = await kernel.session.create({"goal": "x"})
        await session.register_hook("policy:request", allow)
        return kernel, session

    yield open_kernel
    await asyncio.gather(*(kernel.close() for kernel in kernels))


async def test_it_ends_with_the_process_and_the_log_tells(opened, module, events):
    ledger = Ledger()
    kernel, session = await opened(isolation=ledger)
    await session.mount("/mnt/tools", module("echo.py"))
    assert (ledger.begun, ledger.ended, ledger.closed) == (1, 0, 0)
    await session.unmount(ECHO)
    assert (ledger.begun, ledger.ended, ledger.closed) == (1, 1, 0)
    (told,) = events("module:exit")
    assert (told["data"]["box"], told["data"]["exit_code"]) == (1, 0)
    await kernel.close()
    assert (ledger.ended, ledger.closed) == (1, 1)


async def test_a_process_that_dies_ends_it_before_the_next_one_begins(opened, module):
    ledger = Ledger()
    kernel, session = await opened(isolation=ledger)
    await session.mount("/mnt/tools", module("misbehaving.py", "m", "die", "os._exit(3)", name="m"))
    with pytest.raises(Unreachable):
        await session.invoke("/mnt/tools/m", "die", {})
    assert (ledger.begun, ledger.ended) == (1, 1)
    await session.invoke("/mnt/tools/m", "echo", {})
    assert (ledger.begun, ledger.ended) == (2, 1)
    await kernel.close()
    assert ledger.ended == 2


async def test_it_ends_even_if_nothing_was_started(opened, module):
    ledger = Ledger()
    kernel, session = await opened(isolation=ledger)
    told = module("echo.py")
    told.transport["command"][0] = "/no/such/program"
    with pytest.raises(Unreachable):
        await session.mount("/mnt/tools", told)
    assert (ledger.begun, ledger.ended) == (1, 1)
    await kernel.close()
    assert ledger.ended == 1


async def raises():
    raise ValueError("no way")


async def cancels_itself():
    raise asyncio.CancelledError


async def tells_no_json():
    return {"box": object()}


async def never():
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (raises, "isolation 'ledger' raised ValueError: no way"),
        (cancels_itself, "isolation 'ledger' was cancelled before it had ended what it started"),
        (tells_no_json, "isolation 'ledger' told what is not JSON: end.box: expected JSON, got object"),
        (never, "isolation 'ledger' had not ended what it started after 0.1 s"),
    ],
)
async def test_an_end_that_fails_is_in_the_log(opened, module, events, monkeypatch, end, said):
    monkeypatch.setattr("amplifier_core._modules.confinement._END_SECONDS", 0.1)
    kernel, session = await opened(isolation=Ledger(end=end))
    await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()
    (told,) = events("module:exit")
    assert told["data"]["end_error"] == said


async def test_an_isolation_that_fails_to_close_closes_the_kernel_all_the_same(opened, module):
    class Broken(Ledger):
        def close(self):
            raise ValueError

    kernel, session = await opened(isolation=Broken())
    await session.mount("/mnt/tools", module("echo.py"))
    await kernel.close()


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("", "net:connect:a.b:1 on"),
        ("no way", "net:connect:a.b:1 (no way) on"),
        (lambda _: 1 / 0, "(ZeroDivisionError:"),
    ],
)
async def test_a_refusal_has_the_reason_of_the_isolation(opened, module, why, said):
    word = "net:connect:a.b:1"
    kernel, session = await opened(isolation=Ledger(unenforced=(word,), why=why))
    with pytest.raises(Forbidden) as caught:
        await session.mount("/mnt/tools", module("echo.py", capabilities=[word]))
    assert said in caught.value.message
    await kernel.close()


async def test_each_mount_has_the_isolation_that_it_names(opened, module, events):
    usual, one, other = Ledger("usual"), Ledger("one"), Ledger("other")
    kernel, session = await opened(isolation=usual, isolations={"a": one, "b": other})
    for name, path in ((None, "/mnt/tools"), ("a", "/mnt/agents"), ("usual", "/mnt/context"), ("b", "/mnt/hooks")):
        await session.mount(path, module("echo.py", kind="tool"), isolation=name)
    assert [told["data"]["isolation"] for told in events("module:start")] == ["usual", "one", "usual", "other"]
    described = await kernel.describe_host()
    assert described["isolation"]["name"] == "usual"
    assert {name: told["name"] for name, told in described["isolations"].items()} == {"a": "one", "b": "other"}
    await kernel.close()
    assert [ledger.closed for ledger in (usual, one, other)] == [1, 1, 1]


async def test_a_mount_may_name_one_that_is_installed(opened, module, events):
    kernel, session = await opened(isolation=Ledger())
    try:
        await session.mount("/mnt/tools", module("echo.py"), isolation="bwrap")
    except Forbidden as error:
        missing_here(error.message)
    assert [told["data"]["isolation"] for told in events("module:start")] == ["bwrap"]
    await kernel.close()


async def test_a_hook_that_comes_while_an_isolation_is_asked_is_asked_too(opened, module):
    """It tries what it can enforce in a thread, and meanwhile the loop goes on."""
    loop = asyncio.get_running_loop()

    async def deny(event):
        return {"decision": "deny", "reason": "it came late"}

    class Slow(Ledger):
        calls = 0

        def unenforced(self, capabilities):
            self.calls += 1
            if self.calls == 2:  # the first one was before policy
                register = session.register_hook("policy:request", deny)
                asyncio.run_coroutine_threadsafe(register, loop).result(20)
            return ()

    kernel, session = await opened(isolation=Slow())
    with pytest.raises(Forbidden, match="it came late"):
        await session.mount("/mnt/tools", module("echo.py", capabilities=["net:connect:a.b:1"]))
    await kernel.close()


async def test_a_name_that_is_none_is_refused(opened, module):
    kernel, session = await opened(isolation=False, isolations={"box": {"type": "no-such"}})
    for name in ("boxes", 5):
        with pytest.raises(BadRequest, match="isolation: expected one of .*box.*, got"):
            await session.mount("/mnt/tools", module("echo.py"), isolation=name)
    with pytest.raises(BadRequest, match="isolation: expected none for a module that is trusted"):
        await session.mount("/mnt/tools", module("echo.py"), isolation="box", trusted=True)
    with pytest.raises(Forbidden, match="box: isolation 'no-such' is not installed"):
        await session.mount("/mnt/tools", module("echo.py"), isolation="box")
    elsewhere: dict = {"name": "echo", "kind": "tool", "capabilities": []}
    elsewhere["transport"] = {"type": "http", "url": "http://127.0.0.1:1/"}
    with pytest.raises(BadRequest, match="isolation: /mnt/tools/echo runs elsewhere, and 'box' cannot confine it"):
        await session.mount("/mnt/tools", elsewhere, isolation="box")
    assert "box" in (await kernel.describe_host())["unusable"]
    await kernel.close()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (5, "isolations: expected an object"),
        ({5: "bwrap"}, "isolations: expected an object"),
        ({"box": 5}, "isolations.box: expected a name"),
        ({"box": False}, "isolations.box: expected a name, or an object whose type is text, got False"),
    ],
)
def test_what_names_no_isolations_is_refused(others, said):
    with pytest.raises(BadRequest, match=said):
        Kernel(isolations=others)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modules of tests are started by a path")
