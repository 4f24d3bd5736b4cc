"""Containers: an isolation from outside that runs modules in them, and one as an ordinary, trusted command.

The tests run only where podman is installed and can run a container. The image is one program.
"""

import contextlib
import importlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.isolation.conftest import ATTACKS

from amplifier_core import Kernel, Plan, Unreachable

THIRDPARTY = Path(__file__).parents[1] / "thirdparty" / "amplifier-thirdparty-example" / "src"
PODMAN = shutil.which("podman")
pytestmark = pytest.mark.skipif(PODMAN is None or platform.system() != "Linux", reason="podman is not installed")
WAYS = ([], ["--runtime=runc", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"])  # the second helps Debian's
TOLD = {"name": "box", "kind": "tool", "capabilities": []}
DESCRIBED = json.dumps({**TOLD, "inputs": {}, "outputs": {}})


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Make an image from one static program: the attack on the kernel's key rings."""
    folder = tmp_path_factory.mktemp("image")
    program, archive = folder / "keyctl", folder / "image.tar"
    subprocess.run(["gcc", "-static", "-w", "-o", program, ATTACKS / "keyctl.c"], check=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(program, "module")
        tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    name = f"amplifier-test-{os.getpid()}"
    done = subprocess.run(["podman", "import", "--quiet", archive, name], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"podman cannot import an image here: {done.stderr}")
    yield name
    subprocess.run(["podman", "rmi", "--force", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def plugin():
    """Import the distribution from outside, without installing it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(THIRDPARTY))
        yield importlib.import_module("amplifier_thirdparty_example.podman")
    for name in [name for name in sys.modules if name.startswith("amplifier_thirdparty_example")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def options(image, plugin):
    """Find the options with which podman runs a container here; else skip the tests with its reason."""
    reason = ""
    for options in WAYS:
        reason = plugin.open_isolation({"image": image, "options": options, "probe": ["/module"]}).trial()
        if not reason:
            return options
    return pytest.skip(f"podman cannot run a container here: {reason}")


@pytest.fixture
def containers(image):
    """Name the containers that there are, of this image."""

    def containers():
        words = ["podman", "ps", "--all", "--format={{.Names}} {{.Image}}"]
        lines = subprocess.run(words, capture_output=True, check=True, text=True).stdout.splitlines()
        return [line.split()[0] for line in lines if f"/{image}:" in line]

    yield containers
    assert containers() == []


@pytest.fixture
async def boxed(image, options, plugin, log):
    """Yield a session whose mounts may name the isolation `box`."""
    box = plugin.open_isolation({"image": image, "options": options, "probe": ["/module"]})
    async with Kernel(event_log=log, isolations={"box": box}) as kernel:
        yield await kernel.session.create(Plan(goal="run a container"))


def descriptor():
    return {**TOLD, "transport": {"type": "stdio", "command": ["/module"], "env": {"DESCRIPTION": DESCRIBED}}}


async def test_an_isolation_runs_a_module_in_a_container_and_removes_it(boxed, containers, events):
    await boxed.mount("/mnt/tools", descriptor(), isolation="box", timeout=120)
    assert await boxed.invoke("/mnt/tools/box", "try", {}, timeout=60)
    (started,) = events("module:start")
    assert containers() == [started["data"]["container"]]
    await boxed.unmount("/mnt/tools/box")
    assert containers() == []
    (exited,) = events("module:exit")
    assert exited["data"]["container"] == started["data"]["container"]


async def test_a_container_whose_client_is_killed_is_removed_too(boxed, containers, events):
    await boxed.mount("/mnt/tools", descriptor(), isolation="box", timeout=120)
    (started,) = events("module:start")
    assert containers() == [first := started["data"]["container"]]
    os.kill(started["data"]["pid"], signal.SIGKILL)
    with contextlib.suppress(Unreachable):  # it had not been noticed yet
        await boxed.invoke("/mnt/tools/box", "try", {}, timeout=60)
    await boxed.unmount("/mnt/tools/box")
    assert containers() == []
    assert events("module:exit")[0]["data"].items() >= {"container": first, "signal": "SIGKILL"}.items()


async def test_a_container_is_an_ordinary_command(image, options, log):
    """It may outlive its killed client for a while: nobody but podman removes it."""
    words = ["--rm", "-i", "--network=none", "--read-only", "--cap-drop=all", f"--env=DESCRIPTION={DESCRIBED}"]
    transport = {
        "type": "stdio",
        "command": ["podman", "run", *words, *options, image, "/module"],
        "env": {name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in os.environ},
    }
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan(goal="run a container"))
        await session.mount("/mnt/tools", {**TOLD, "transport": transport}, trusted=True, timeout=60)
        assert await session.invoke("/mnt/tools/box", "try", {}, timeout=20)
        await session.unmount("/mnt/tools/box")
