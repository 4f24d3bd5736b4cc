"""The fixtures of all tests: a kernel with its log, modules that are processes, and a check of what a test leaves."""

import asyncio
import contextlib
import functools
import importlib.metadata
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from amplifier_core import Kernel, ModuleDescriptor, Plan

MODULES = Path(__file__).parent / "modules"


def children() -> set[str]:
    """Name the child processes of this process, zombies too."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - pathlib takes twice as long, four times a test
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:  # noqa: PTH123
            found |= set(file.read().split())  # or the thread has ended meanwhile
    return found


def descriptors() -> dict[str, str]:
    """List this process's open files, by descriptor."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # it belongs to the listing of the folder
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a pipe is no path
    return found


TRACING = "COVERAGE_PROCESS_CONFIG"  # coverage measures a child process that has it in its environment


@pytest.fixture(scope="session", autouse=True)
def children_are_not_traced():
    """Start child processes without coverage, which costs each of them 0.3 s of CPU time. ``traced`` undoes it."""
    yield (config := os.environ.pop(TRACING, None))
    if config:
        os.environ[TRACING] = config


@pytest.fixture
def traced(children_are_not_traced, monkeypatch):
    """Start child processes with coverage: some code of the product runs nowhere else."""
    if children_are_not_traced:
        monkeypatch.setenv(TRACING, children_are_not_traced)


@pytest.fixture(scope="session", autouse=True)
def entry_points_are_read_once():
    """Read the installed entry points once, and not for each kernel, at 11 ms. On another path they are read anew."""
    read, path = importlib.metadata.entry_points, [*sys.path]
    once = functools.cache(read)

    def entry_points(**wanted):
        return once(**wanted) if sys.path == path else read(**wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", entry_points)
        yield


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail a test that leaves a process or an open file behind."""
    if not Path("/proc/self/fd").exists():
        yield
        return
    before = children(), descriptors()
    yield
    left = files_left(before[1])
    assert children() <= before[0], "child processes are left"
    assert not left, "open files are left"


def files_left(before):
    """Give the files that are open and were not before, once gRPC has closed its own: it does so in a thread.

    It keeps some pollers open for the whole process.
    """
    deadline = time.monotonic() + (5 if "grpc" in sys.modules else 0)
    while True:
        left = {fd: name for fd, name in descriptors().items() if fd not in before}
        if "grpc" in sys.modules:
            left = {fd: name for fd, name in left.items() if "anon_inode" not in name}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def begin_grpc():
    """Let gRPC open what it keeps open for its event loops, before anybody counts."""
    import grpc.aio  # noqa: PLC0415 - few tests need it

    async def begin():
        grpc.aio.init_grpc_aio()

    asyncio.run(begin())


@pytest.fixture(scope="session")
def grpc_is_up():
    """Let gRPC be up."""
    begin_grpc()


@pytest.fixture
async def later():
    """What is to end with the test: ``later.push_async_callback(server.stop)``. What began last ends first."""
    async with contextlib.AsyncExitStack() as later:
        yield later


@pytest.fixture
def log(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.fixture
async def kernel(log):
    async with Kernel(event_log=log, isolation=False) as kernel:  # an isolation may be installed or not
        yield kernel


@pytest.fixture
async def session(kernel):
    return await kernel.session.create(Plan(goal="test", inputs={}))


@pytest.fixture
def events(log):
    """Read all events of the log so far, but those of the kernel's own start and end; or those of one name."""

    def read(name=None):
        found = [json.loads(line) for line in log.read_bytes().splitlines()]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
        names = [event["event"] for event in found]
        assert names[0] == "kernel:start"
        assert "kernel:end" not in names[:-1]
        own = () if name else ("kernel:start", "kernel:end")
        return [event for event in found if name in (None, event["event"]) and event["event"] not in own]

    return read


async def exits(events):
    """Give the data of each ``module:exit`` when there is one: a module that is killed has a successor before that."""
    async with asyncio.timeout(20):
        while not events("module:exit"):
            await asyncio.sleep(0.01)
    return [event["data"] for event in events("module:exit")]


@pytest.fixture
def module():
    """Describe a program of tests/modules over STDIO: its file, its arguments, and the fields to change."""

    def describe(file, *argv, name=None, kind="tool", capabilities=(), **fields):
        interpreter = {"mjs": "node", "sh": "sh", "pl": "perl"}.get(file.rpartition(".")[2], sys.executable)
        name = name or file.partition(".")[0]
        options = ["--name", name]
        if file in ("echo.py", "caller.py", "streamer.py"):
            options += ["--kind", kind, "--capabilities", json.dumps(list(capabilities))]
        if file in ("echo.py", "caller.py", "hook.py", "streamer.py"):
            argv = (*argv, *options)
        return ModuleDescriptor.from_mapping(
            {
                "name": name,
                "kind": kind,
                "capabilities": list(capabilities),
                "transport": {"type": "stdio", "command": [interpreter, str(MODULES / file), *map(str, argv)]},
                **fields,
            }
        )

    return describe


def missing_here(reason):
    """Skip a test that this machine cannot run, and give the reason. In CI the test fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def peak_of_memory():
    """Require what tells the peak of a process's memory: Linux, in /proc."""
    if not Path("/proc/self/clear_refs").exists():
        missing_here("the peak of memory is read from /proc/self/clear_refs")


@pytest.fixture
def need():
    """Require a program: where it is not installed, the test is skipped. In CI it fails."""

    def check(program):
        if shutil.which(program) is None:
            missing_here(f"{program} is not installed")

    return check
