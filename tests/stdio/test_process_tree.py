"""Trees of processes, also where neither ``waitid`` nor pidfds exist, as on macOS."""

import os
import signal
import sys
from pathlib import Path

import pytest

from amplifier_core import Timeout, Unreachable
from amplifier_core.hookspecs import Launch
from amplifier_transport_stdio._exit_status import is_signal, read_status
from amplifier_transport_stdio._process_tree import ProcessTree


@pytest.fixture
def no_waitid(monkeypatch):
    """Take away what macOS does not have, with some Pythons."""
    for name in ("waitid", "pidfd_open"):
        monkeypatch.delattr(os, name)


def start(*command):
    return ProcessTree(Launch(command=command, cwd="/", env=os.environ), os.environ)


def finish(tree):
    with tree.popen:
        tree.send(signal.SIGKILL)
        tree.wait()
        tree.kill_rest()
    assert tree.has_ended()


def test_a_root_is_awaited_and_ended(monkeypatch):
    tree = start("sleep", "60")
    assert not tree.has_ended()
    finish(tree)


def test_a_root_is_awaited_and_ended_without_waitid(no_waitid):
    tree = start("sleep", "60")
    assert not tree.has_ended()
    finish(tree)
    tree.send(signal.SIGKILL)  # nobody


def test_an_end_that_nobody_has_noticed_is_seen(no_waitid):
    tree = start("true")
    while not tree.has_ended():
        pass
    finish(tree)


@pytest.mark.asyncio(loop_factories=["threads"])
async def test_modules_run_where_there_is_no_waitid(session, module, no_waitid):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    echo = "/mnt/tools/echo"
    for n in range(2):
        assert await session.invoke(echo, "echo", {"n": n}) == {"n": n}
        with pytest.raises(Timeout):
            await session.invoke(echo, "deaf", {"seconds": 30}, timeout=0.1)
    await session.unmount(echo)


@pytest.mark.asyncio(loop_factories=["threads"])
async def test_a_module_that_cannot_be_started_says_why_without_waitid(session, module, no_waitid, tmp_path):
    descriptor = module("echo.py")
    transport = {"type": "stdio", "command": [str(tmp_path / "missing")]}
    with pytest.raises(Unreachable, match="missing: No such file"):
        await session.mount(
            "/mnt/tools",
            type(descriptor).from_mapping({"name": "m", "kind": "tool", "capabilities": [], "transport": transport}),
            trusted=True,
        )


def run_python(code, **fields):
    command = (sys.executable, "-c", code)
    return ProcessTree(Launch(command=command, cwd="/", env={}, **fields), {})


def test_a_root_that_somebody_else_has_reaped_has_ended():
    tree = run_python("raise SystemExit(7)")
    pidfd = tree.watch()
    os.waitpid(tree.popen.pid, 0)
    assert tree.has_ended()
    tree.wait()
    tree.reap()
    assert tree.exit_code in (7, None)
    assert tree.popen.returncode in (7, 255)
    tree.after_fork()
    if pidfd is not None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pidfd)


def test_where_nobody_can_tell_there_is_no_exit_code(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    tree = run_python("raise SystemExit(7)")
    os.waitpid(tree.popen.pid, 0)
    tree.wait()
    tree.reap()
    assert tree.exit_code is None
    assert tree.popen.returncode == 255
    tree.after_fork()


def test_a_system_without_statuses_of_pidfds_tells_none():
    assert read_status(None) is None
    with Path(os.devnull).open("rb") as file:
        assert read_status(file.fileno()) is None
    assert not is_signal(None, 139)
    assert not is_signal(3 << 8, 131)
    assert is_signal(11, 139)


def test_an_ended_root_has_no_program_to_find():
    tree = run_python("", generations=2)
    tree.wait()
    tree.reap()
    assert tree.find_program()
    tree.after_fork()


async def test_a_root_that_runs_is_left_alone_in_the_child():
    tree = run_python("input()")
    assert tree.popen.stdin
    stdin = os.dup(tree.popen.stdin.fileno())
    tree.after_fork()
    assert tree.has_ended(), "nothing is sent to it there"
    tree.popen.returncode = None
    os.close(stdin)
    tree.popen.wait()
