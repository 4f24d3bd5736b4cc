"""Trees of processes, also where there are no process groups, as on Windows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from amplifier_core import Timeout, Unreachable
from amplifier_core.hookspecs import Launch
from amplifier_transport_stdio._exit_status import is_signal, read_status
from amplifier_transport_stdio._process_tree import ProcessTree, descendants, describe_kill

PARENT = """
import subprocess, sys
depth = int(sys.argv[1])
if depth:
    with subprocess.Popen([sys.executable, __file__, str(depth - 1)]) as child:
        print(child.pid, flush=True)
        sys.stdin.read()
print("leaf", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree(tmp_path):
    """A process, its child and its grandchild; gives their pids, the oldest first."""
    file = tmp_path / "parent.py"
    file.write_text(PARENT)
    command = [sys.executable, str(file), "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        yield [process.pid, *sorted(int(line) for line in lines if line != b"leaf\n")]
        process.communicate()


def test_descendants_are_found_and_nobody_else(tree):
    root, *others = tree
    born = psutil.Process(root).create_time()
    assert sorted(each.pid for each in descendants(root, born)) == others
    assert {os.getpid()} | set(tree) <= {os.getpid(), *(each.pid for each in descendants(os.getpid(), 0))}


def test_who_is_older_than_the_parent_whose_pid_it_names_is_no_child(tree):
    last = psutil.Process(tree[-1]).create_time()
    assert not list(descendants(tree[0], last + 10))


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def no_groups(monkeypatch):
    """Take away what Windows does not have."""
    for name in ("killpg", "waitid", "pidfd_open"):
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


def test_a_root_is_awaited_and_ended_without_groups(no_groups):
    tree = start("sleep", "60")
    assert not tree.has_ended()
    finish(tree)
    tree.send(signal.SIGKILL)  # nobody


def test_an_end_that_nobody_has_noticed_is_seen(no_groups):
    tree = start("true")
    while not tree.has_ended():
        pass
    finish(tree)


def test_what_a_root_left_is_ended_by_descent(no_groups, tree, monkeypatch):
    """The root is a live one here: the system that keeps the parents of orphans is Windows."""
    mine = start("true")
    monkeypatch.setattr(mine.popen, "pid", tree[0])
    monkeypatch.setattr(mine, "_began", psutil.Process(tree[0]).create_time())
    others = [psutil.Process(pid) for pid in tree[1:]]
    mine.kill_rest()
    while any(map(runs, others)):
        pass
    monkeypatch.undo()
    finish(mine)


def test_without_psutil_nobody_else_is_ended(no_groups, monkeypatch):
    assert describe_kill() == "ended by descent, with psutil"
    monkeypatch.setitem(sys.modules, "psutil", None)  # not installed
    assert describe_kill() == "not ended but for the root: psutil is not installed"
    finish(start("sleep", "60"))


@pytest.mark.asyncio(loop_factories=["threads"])
async def test_modules_run_where_there_are_no_groups(session, module, no_groups):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    echo = "/mnt/tools/echo"
    for n in range(2):
        assert await session.invoke(echo, "echo", {"n": n}) == {"n": n}
        with pytest.raises(Timeout):
            await session.invoke(echo, "deaf", {"seconds": 30}, timeout=0.1)
    await session.unmount(echo)


@pytest.mark.asyncio(loop_factories=["threads"])
async def test_a_module_that_cannot_be_started_says_why_without_groups(session, module, no_groups, tmp_path):
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


def test_a_root_is_reaped_where_there_is_no_waitpid(monkeypatch):
    tree = run_python("raise SystemExit(7)")
    tree.wait()
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        tree.reap()
    assert tree.exit_code == 7
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
