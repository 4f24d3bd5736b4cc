"""What a module's children have started, and outlives them: on every system it ends with the module, or the kernel."""

import asyncio
import contextlib
import json
import subprocess
import sys

import psutil
import pytest

from amplifier_core import load_descriptor

pytestmark = pytest.mark.windows

MODULE = """
import json, subprocess, sys
CHILD = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {!r}], stdout=subprocess.DEVNULL).pid)"
SLEEP = "import time; time.sleep(600)"
for line in sys.stdin.buffer:
    request = json.loads(line)
    result = {"status": "ok"}
    if request["method"] == "describe":
        result = {"name": "parent", "kind": "tool", "version": "1.0.0", "capabilities": [],
                  "inputs": {"start": {}}, "outputs": {"start": {}}}
    elif request["method"] == "invoke":
        child = subprocess.run([sys.executable, "-c", CHILD.format(SLEEP)], stdout=subprocess.PIPE, check=True)
        result = {"pid": int(child.stdout)}
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""

KERNEL = """
import asyncio, sys
from amplifier_core import Kernel, Plan, load_descriptor
async def main():
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", load_descriptor(sys.argv[1]), trusted=True)
        print((await session.invoke("/mnt/tools/parent", "start", {}))["pid"], flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def descriptor(tmp_path):
    (tmp_path / "parent.py").write_text(MODULE)
    file = tmp_path / "parent.json"
    transport = {"type": "stdio", "command": [sys.executable, "parent.py"]}
    file.write_text(json.dumps({"name": "parent", "kind": "tool", "capabilities": [], "transport": transport}))
    return file


async def is_gone(pid):
    async with asyncio.timeout(20):
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)
    return True


async def test_a_grandchild_that_outlives_its_parent_ends_with_the_module(session, descriptor):
    await session.mount("/mnt/tools", load_descriptor(descriptor), trusted=True)
    pid = (await session.invoke("/mnt/tools/parent", "start", {}))["pid"]
    assert psutil.pid_exists(pid)
    await session.unmount("/mnt/tools/parent")
    assert await is_gone(pid)


async def test_a_grandchild_ends_with_a_kernel_that_is_killed(descriptor):
    with subprocess.Popen([sys.executable, "-c", KERNEL, str(descriptor)], stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout
        pid = int(kernel.stdout.readline())
        assert psutil.pid_exists(pid)
        kernel.kill()
    assert await is_gone(pid)
