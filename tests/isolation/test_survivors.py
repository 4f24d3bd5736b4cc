"""Kernels that are killed at random moments of starts, restarts and unmounts: nothing of them is left."""

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest
from tests.conftest import missing_here
from tests.isolation.conftest import confine
from tests.isolation.test_lifetime import gone, survivors

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Launch

pytestmark = pytest.mark.usefixtures("linux")

AT_ONCE = 8
ROUNDS = 5
REPEATED = 5 if os.environ.get("CI") and sys.version_info >= (3, 13) else 1  # 200 kernels, or 40

DEAF = """
import json, os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
for line in sys.stdin:
    request = json.loads(line)
    if request.get("method") == "health":
        result = {"status": "ok"}
    elif request.get("method") == "describe":
        result = {"name": sys.argv[2], "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
    elif request.get("params", {}).get("op") == "die":
        os._exit(3)
    else:
        result = None
    print(json.dumps({"id": request.get("id"), "ok": True, "result": result}), flush=True)
time.sleep(600)
"""

KERNELS = """
import asyncio, os, random, signal, sys, time
from amplifier_core import Kernel, KernelError, ModuleDescriptor, Plan
import amplifier_transport_stdio._connection, amplifier_isolation_bwrap._isolation

def descriptor(name):
    command = [sys.executable, "-I", "-S", sys.argv[2], sys.argv[1], name]
    transport = {"type": "stdio", "command": command}
    return ModuleDescriptor.from_mapping({"name": name, "kind": "tool", "capabilities": [], "transport": transport})

async def use(session, name, trusted):
    while True:
        await session.mount("/mnt/tools", descriptor(name), timeout=60, trusted=trusted)
        for op in ("die", "fine"):
            try:
                await session.invoke(f"/mnt/tools/{name}", op, {})
            except KernelError:
                pass
        await asyncio.wait([asyncio.ensure_future(session.unmount("/mnt/tools", name))], timeout=0.1)
        name += "x"

async def main(ready):
    async with Kernel(event_log=False, isolation="bwrap") as kernel:
        session = await kernel.session.create(Plan(goal="be killed"))
        if random.random() < 0.9:
            await kernel.describe_host()
        os.write(ready, b"x")
        await asyncio.gather(*(use(session, f"m{n}", n % 2 == 0) for n in range(4)))

def start():
    reading, ready = os.pipe()
    pid = os.fork()
    if not pid:
        random.seed()
        asyncio.run(main(ready))
    os.close(ready)
    return pid, reading

for line in sys.stdin:
    started = [start() for _ in range(int(line))]
    for pid, reading in started:
        os.read(reading, 1)
        os.close(reading)
    for pid, _ in started:
        time.sleep(random.uniform(0, 0.6 / len(started)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print("killed", flush=True)
"""


@pytest.fixture
def mark(tmp_path):
    return f"amplifier-test-killed-{os.getpid()}-{tmp_path.name}"


@pytest.mark.parametrize("part", range(REPEATED))
async def test_nothing_is_left_of_kernels_that_are_killed_at_any_moment(works, tmp_path, mark, part):
    if works:
        missing_here(works)
    module = tmp_path / "deaf.py"
    module.write_text(DEAF)
    command = [sys.executable, "-c", textwrap.dedent(KERNELS), mark, str(module)]
    with subprocess.Popen(command, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernels:
        assert kernels.stdin
        assert kernels.stdout
        for _ in range(ROUNDS):
            print(AT_ONCE, file=kernels.stdin)
            assert await asyncio.to_thread(kernels.stdout.readline) == "killed\n"
            await gone(mark, but=kernels.pid)
        kernels.stdin.close()


def test_the_end_of_the_gate_is_no_word(isolation, tmp_path, mark):
    """The kernel that holds the other end was killed: what waits at the gate ends, and starts nothing."""
    fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio"}}
    descriptor = ModuleDescriptor.from_mapping(fields)
    command = ("sh", "-c", "echo started; sleep 600", mark)
    wanted = Launch(command=command, cwd="/", env={"PATH": os.environ["PATH"]})
    launch = confine(isolation, wanted, descriptor, ())
    piped = subprocess.PIPE
    with subprocess.Popen(launch.command, env={}, pass_fds=launch.fds, stdout=piped, stderr=piped) as process:
        launch.close()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, b"")
    assert b"--unshare-uts" in err
    assert not survivors(mark)
