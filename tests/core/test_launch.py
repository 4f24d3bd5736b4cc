"""Starting the process of a launch: a transport's own, or the one that an isolation made of it."""

import os
import subprocess
import sys

import pytest

from amplifier_core.hookspecs import Launch

resource = pytest.importorskip("resource", reason="Windows has no resource limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets another process's limits")


@pytest.fixture
def held():
    """A launch whose process waits at a gate until its limits are set, and then prints them."""
    reading, gate = os.pipe()
    code = f"import os, resource; os.read({reading}, 1); print(resource.getrlimit(resource.RLIMIT_CORE))"

    def make(**limits):
        numbers = {getattr(resource, name): value for name, value in limits.items()}
        command = (sys.executable, "-c", code)
        return Launch(command=command, cwd="/", env={}, fds=(reading,), limits=numbers, gate=gate)

    return make


def closed(fd):
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_it_goes_on_when_its_limits_are_set(held):
    launch = held(RLIMIT_CORE=0)
    with launch.start(stdout=subprocess.PIPE) as process:
        assert process.stdout.read() == b"(0, 0)\n"
    assert closed(launch.gate)
    assert closed(launch.fds[0])


def test_a_process_that_cannot_be_limited_does_not_run(held):
    launch = held(RLIMIT_NOFILE=1 << 40)
    reading, writing = os.pipe()
    with pytest.raises(PermissionError):
        launch.start(stdout=writing)
    assert closed(launch.gate)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert said.read() == b""  # and no process has the other end


def test_a_launch_that_is_not_started_is_released(held):
    launch = held()
    launch.close()
    assert closed(launch.gate)
    assert closed(launch.fds[0])
