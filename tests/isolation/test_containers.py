"""A container as a module: an ordinary command, trusted, since a sandbox forbids the namespaces that a container needs.

The test runs only where podman is installed, in CI too: the other tests do not need it. The image is one program.
"""

import io
import json
import os
import platform
import shutil
import subprocess
import tarfile

import pytest
from tests.isolation.conftest import ATTACKS

from amplifier_core import Kernel, Plan

PODMAN = shutil.which("podman")
pytestmark = pytest.mark.skipif(PODMAN is None or platform.system() != "Linux", reason="podman is not installed")


@pytest.fixture
def image(tmp_path):
    """Make an image from one static program: the attack on the kernel's key rings."""
    program, archive = tmp_path / "keyctl", tmp_path / "image.tar"
    subprocess.run(["gcc", "-static", "-w", "-o", program, ATTACKS / "keyctl.c"], check=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(program, "module")
        tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    name = f"amplifier-test-{os.getpid()}"
    subprocess.run(["podman", "import", "--quiet", archive, name], check=True, capture_output=True)
    yield name
    subprocess.run(["podman", "rmi", "--force", name], check=True, capture_output=True)


async def test_a_container_is_an_ordinary_command(image, log, events):
    told = {"name": "box", "kind": "tool", "capabilities": []}
    described = json.dumps({**told, "inputs": {}, "outputs": {}})
    options = ["--rm", "-i", "--network=none", "--read-only", "--cap-drop=all", f"--env=DESCRIPTION={described}"]
    transport = {
        "type": "stdio",
        "command": ["podman", "run", *options, image, "/module"],
        "env": {name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in os.environ},
    }
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan(goal="run a container"))
        await session.mount("/mnt/tools", {**told, "transport": transport}, trusted=True, timeout=60)
        assert await session.invoke("/mnt/tools/box", "try", {}, timeout=20)
        await session.unmount("/mnt/tools/box")
    left = subprocess.run(["podman", "ps", "-q", "--filter", f"ancestor={image}"], capture_output=True, check=True)
    assert left.stdout == b""
