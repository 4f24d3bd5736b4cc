"""The end of isolated modules: all that they started ends with them, and with a kernel that is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.isolation.conftest import confine

from amplifier_core import ModuleDescriptor, Unreachable
from amplifier_core.hookspecs import Launch

pytestmark = pytest.mark.usefixtures("linux")

MARK = "amplifier-test-survivor"
MODULE = """
import json, os, signal, subprocess, sys, time
def reply(request, result):
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    if request["method"] == "health":
        reply(request, {"status": "ok"})
    elif request["method"] == "describe":
        told = {"name": "daemons", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
        reply(request, told)
    else:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        sleep = [sys.argv[2], "-c", "import time; time.sleep(600)", sys.argv[1]]
        subprocess.Popen(sleep, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in (0, 1, 2):
                    os.close(fd)
                os.environ.clear()
                os.execv(sleep[0], sleep)
            os._exit(0)
        os.wait()
        if request["params"]["op"] == "die":
            os._exit(3)
        reply(request, os.getpid())
        if request["params"]["op"] == "deaf":
            time.sleep(600)
"""


def survivors(mark):
    """List the processes whose command has the mark, those in sandboxes too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(folder.name)
        except OSError:
            continue
    return found


async def there(mark):
    """Wait until a module and its two processes have the mark: during exec, a process shows no command."""
    async with asyncio.timeout(20):
        while len(survivors(mark)) < 3:
            await asyncio.sleep(0.01)


async def gone(mark, but=0):
    """Wait until no other process has the mark: some end a moment after the first one was waited for."""
    async with asyncio.timeout(20):
        while set(survivors(mark)) - {str(but)}:
            await asyncio.sleep(0.01)


@pytest.fixture
def mark(tmp_path):
    return f"{MARK}-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def daemons(tmp_path, mark):
    """Describe a module that starts a child, and a daemon without its session, its parent and its environment."""
    (tmp_path / "daemons.py").write_text(MODULE)
    command = [sys.executable, str(tmp_path / "daemons.py"), mark, sys.executable]
    return ModuleDescriptor.from_mapping(
        {"name": "daemons", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "command": command}}
    )


async def test_a_daemon_ends_with_the_mount(isolated, daemons, mark):
    await isolated.mount("/mnt/tools", daemons)
    await isolated.invoke("/mnt/tools/daemons", "start", {})
    await there(mark)
    await isolated.unmount("/mnt/tools/daemons")
    await gone(mark)


async def test_a_module_that_hears_no_signal_ends_all_the_same(isolated, daemons, mark):
    await isolated.mount("/mnt/tools", daemons)
    await isolated.invoke("/mnt/tools/daemons", "deaf", {})
    await isolated.unmount("/mnt/tools/daemons")
    await gone(mark)


async def test_a_daemon_ends_with_its_module(isolated, daemons, mark):
    await isolated.mount("/mnt/tools", daemons)
    with pytest.raises(Unreachable, match="exit code 3"):
        await isolated.invoke("/mnt/tools/daemons", "die", {})
    await gone(mark)


KERNEL = """
import asyncio, sys
from amplifier_core import Kernel, ModuleDescriptor, Plan
async def main():
    async with Kernel(event_log=False, isolation="bwrap") as kernel:
        session = await kernel.session.create(Plan(goal="be killed"))
        descriptor = {{"name": "daemons", "kind": "tool", "capabilities": [],
                      "transport": {{"type": "stdio", "command": {command!r}}}}}
        await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(descriptor))
        print(await session.invoke("/mnt/tools/daemons", "start", {{}}), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_modules_end_with_a_kernel_that_is_killed(works, daemons, mark):
    if works:
        missing_here(works)
    code = textwrap.dedent(KERNEL.format(command=daemons.transport["command"]))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout
        assert kernel.stdout.readline().strip().isdigit()
        try:
            await there(mark)
        finally:
            os.kill(kernel.pid, signal.SIGKILL)
    await gone(mark)


async def test_killing_the_outer_process_leaves_nothing(isolation, daemons, mark):
    command = tuple(daemons.transport["command"])
    launch = confine(isolation, Launch(command=command, cwd="/", env={"PATH": os.environ["PATH"]}), daemons, ())
    with launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"id":"r1","method":"invoke","params":{"op":"deaf"}}\n')
        assert json.loads(process.stdout.readline())["ok"]
        process.kill()
    await gone(mark)


ENDING = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    told = {"name": "ending", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
    if request["method"] == "invoke":
        exec(request["params"]["args"]["code"])
    result = {"health": {"status": "ok"}, "describe": told}[request["method"]]
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""
ENDS: dict = {
    "os.abort()": {"signal": "SIGABRT"},
    "os.kill(os.getpid(), 9)": {"signal": "SIGKILL"},
    "os.kill(os.getpid(), 11)": {"signal": "SIGSEGV"},
    "os._exit(3)": {"exit_code": 3},
    "os._exit(139)": {"exit_code": 139},
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_signal_that_ends_an_isolated_module_is_told_as_one(isolated, end):
    """bwrap says of a signal what a shell does: an exit code, which the module may also have by itself."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15) and "signal" in ENDS[end]:
        missing_here("this system does not tell how a process ended that is no child")
    command = [sys.executable, "-c", ENDING]
    transport = {"type": "stdio", "command": command}
    await isolated.mount("/mnt/tools", {"name": "ending", "kind": "tool", "capabilities": [], "transport": transport})
    with pytest.raises(Unreachable) as caught:
        await isolated.invoke("/mnt/tools/ending", "end", {"code": end})
    details = caught.value.details
    assert {name: details[name] for name in ("signal", "exit_code") if name in details} == ENDS[end]
