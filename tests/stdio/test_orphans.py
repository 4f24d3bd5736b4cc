"""What modules leave behind: how it is found, and that nothing outlives a kernel that is killed, its watch neither."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amplifier_transport_stdio import OrphanKiller
from amplifier_transport_stdio import _orphan_search as search

WAYS = ["group", "session", "double"]
MINE = os.urandom(8).hex()  # the same tests may run at once, and a search looks at the whole host
SLEEPER = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]


def sleeper(**env):
    """Start a process that carries a mark, and wait until it does."""
    process = subprocess.Popen(SLEEPER, env=env, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        process.stdout.readline()
    return process


def is_running(pid):
    """Tell whether a process runs; one that is dead and not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(pid):
    async with asyncio.timeout(20):
        while is_running(pid):
            await asyncio.sleep(0.01)


KERNEL = """
import asyncio, os, sys, time
from amplifier_core import Kernel, Plan, load_descriptor
async def main():
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", load_descriptor(sys.argv[1]), trusted=True)
        pids = [await session.invoke("/mnt/tools/hog", "daemon", {"how": how}) for how in sys.argv[2:]]
        worker = os.fork()  # it holds all pipes of the kernel, and lives on
        if not worker:
            time.sleep(600)
        print(worker, *pids, flush=True)
        await session.invoke("/mnt/tools/hog", "burn", {"milliseconds": 600_000}, timeout=600)
asyncio.run(main())
"""


async def test_nothing_outlives_a_kernel_that_is_killed(tmp_path):
    descriptor = tmp_path / "hog.json"
    hog = Path(__file__).parent.parent / "modules" / "hog.py"
    descriptor.write_text(
        f'{{"name": "hog", "kind": "tool", "capabilities": [],'
        f' "transport": {{"type": "stdio", "command": ["{sys.executable}", "{hog}"]}}}}'
    )
    command = [sys.executable, "-c", KERNEL, str(descriptor), *WAYS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout
        worker, *daemons = [int(pid) for pid in kernel.stdout.readline().split()]
        children = Path(f"/proc/{kernel.pid}/task/{kernel.pid}/children").read_text().split()
        assert len(daemons) == len(WAYS)
        watch, module = (int(pid) for pid in children if int(pid) != worker)  # the module reads no end of input now
        kernel.kill()
    for pid in [*daemons, module]:
        await ended(pid)
    os.kill(worker, signal.SIGKILL)
    await ended(watch)


async def test_those_who_ask_at_once_are_all_served():
    orphans = OrphanKiller()
    marked = [orphans.mark({}) for _ in range(5)]
    processes = [sleeper(**env) for env, _ in marked]
    first = asyncio.ensure_future(orphans.kill(marked[0][1]))
    await asyncio.sleep(0)
    await asyncio.gather(first, *(orphans.kill(mark) for _, mark in marked[1:]))
    for process in processes:
        assert process.wait(10) == -signal.SIGKILL
    await orphans.close()


async def test_without_a_python_to_start_there_is_no_watch(monkeypatch):
    for executable in ("", "/no/such/python"):
        monkeypatch.setattr(sys, "executable", executable)
        orphans = OrphanKiller()
        env, mark = orphans.mark({"A": "1"})
        assert env == {"A": "1", search.VARIABLE: mark}
        await orphans.close()


async def test_a_host_without_proc_has_no_marks(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert OrphanKiller().mark({"A": "1"}) == ({"A": "1"}, "")


def test_a_search_ends_its_own_mark_and_no_other():
    mine = sleeper(**{search.VARIABLE: f"{MINE}.1"})
    strange = (
        {search.VARIABLE: f"{MINE}.12"},
        {"X" + search.VARIABLE: f"{MINE}.1"},
        {"X": f"{search.VARIABLE}={MINE}.1"},
    )
    others = [sleeper(**env) for env in strange]
    assert search.kill_marked({f"{MINE}.1".encode()}) >= 1
    assert mine.wait(10) == -signal.SIGKILL
    assert [process.poll() for process in others] == [None] * 3
    for process in others:
        process.kill()
        process.wait()


def ignores(pid, number):
    """Tell whether a process ignores a signal, as a watch does that has started."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigIgn:")[2].split()[0], 16) >> (number - 1) & 1


@contextlib.contextmanager
def watched(mark, *command):
    """Run a command as the kernel that a watch is to outlive; give both."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel:
        pidfd = os.pidfd_open(kernel.pid)
        assert kernel.stdout
        assert kernel.stdout.readline() == b"ready\n"
        words = [sys.executable, "-m", search.__name__, mark, str(kernel.pid), str(pidfd), search.image(kernel.pid)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=(pidfd,)) as watch:
            os.close(pidfd)
            try:
                while not ignores(watch.pid, signal.SIGTERM):
                    assert watch.poll() is None
                yield kernel, watch
            finally:
                kernel.kill()


READY = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(600)"]
ANOTHER = [sys.executable, "-c", "import os; print('ready', flush=True); input(); os.execvp('sleep', ['sleep', '600'])"]


@pytest.mark.usefixtures("traced")
def test_the_watch_ends_what_is_left_when_its_kernel_ends():
    left = sleeper(**{search.VARIABLE: f"feed{MINE}.7"})
    with watched(f"feed{MINE}", *READY) as (kernel, watch):
        kernel.kill()
        assert left.wait(10) == -signal.SIGKILL
        time.sleep(0.5)  # until the first search has ended, of which nothing tells
        late = sleeper(**{search.VARIABLE: f"feed{MINE}.8"})  # as one that the kernel was starting: it holds the pipe
        assert late.wait(10) == -signal.SIGKILL
        watch.stdin.close()
        assert watch.wait(10) == 0


@pytest.mark.usefixtures("traced")
def test_a_kernel_that_has_closed_its_end_of_the_pipe_has_not_ended():
    left = sleeper(**{search.VARIABLE: f"food{MINE}.7"})
    with watched(f"food{MINE}", *READY) as (kernel, watch):
        watch.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            left.wait(1.5)
        kernel.kill()
        assert left.wait(10) == -signal.SIGKILL
        assert watch.wait(10) == 0


@pytest.mark.usefixtures("traced")
def test_a_kernel_that_became_another_program_has_ended():
    left = sleeper(**{search.VARIABLE: f"fade{MINE}.7"})
    with watched(f"fade{MINE}", *ANOTHER) as (kernel, watch):
        kernel.stdin.write(b"go\n")
        kernel.stdin.flush()
        watch.stdin.close()
        assert left.wait(10) == -signal.SIGKILL
        assert watch.wait(10) == 0
        assert kernel.poll() is None


def test_what_has_ended_has_no_image():
    assert search.image(2**22 + 1) == b""


async def test_a_watch_that_somebody_killed_is_replaced():
    orphans = OrphanKiller()
    orphans.mark({})
    first = orphans._watchdog
    assert first
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    orphans.mark({})
    assert orphans._watchdog not in (None, first)
    await orphans.close()


async def test_an_environment_that_names_a_mark_does_not_replace_it():
    orphans = OrphanKiller()
    env, mark = orphans.mark({"A": "1", search.VARIABLE: "stolen"})
    assert [*env.items()] == [(search.VARIABLE, mark), ("A", "1")]
    await orphans.close()


def test_what_somebody_else_owns_or_has_ended_is_left_alone(monkeypatch):
    assert search._kill(2**22 + 1, {b"x"}) == search._UNMARKED  # beyond the largest pid
    process = sleeper(**{search.VARIABLE: "gone"})

    def too_late(pid):
        raise ProcessLookupError

    monkeypatch.setattr(os, "pidfd_open", too_late)
    assert search._kill(process.pid, {b"gone"}) == search._KILLED
    monkeypatch.undo()
    looks = iter([search._KILLED, search._UNMARKED])  # its pid has been given to another process in between
    monkeypatch.setattr(search, "_look", lambda pid, marks: next(looks))
    assert search._kill(process.pid, {b"gone"}) == search._KILLED
    assert process.poll() is None
    process.kill()
    process.wait()


def test_what_forks_faster_than_it_is_killed_ends_the_search(monkeypatch):
    monkeypatch.setattr(
        search,
        "_kill",
        lambda pid, marks: search._KILLED if pid == os.getpid() else search._UNMARKED,
    )
    assert search.kill_marked({b"x"}) == search._ROUNDS


@pytest.mark.parametrize("seen", [search._UNSURE, search._UNMARKED])
def test_what_cannot_be_seen_at_first_is_found(monkeypatch, seen):
    """In the middle of `exec` no environment can be read; one that was forked during the look is not on its list."""
    looks = iter([seen, search._KILLED])

    def kill(pid, marks):
        return next(looks, search._UNMARKED) if pid == os.getpid() else search._UNMARKED

    monkeypatch.setattr(search, "_kill", kill)
    assert search.kill_marked({b"x"}) == 1


def test_a_process_without_any_environment_is_not_starting(monkeypatch):
    process = sleeper()
    assert search._look(process.pid, {b"x"}) == search._UNMARKED
    monkeypatch.setattr(search, "_is_starting", lambda pid: True)
    assert search._look(process.pid, {b"x"}) == search._UNSURE
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    monkeypatch.undo()
    assert not search._is_starting(process.pid)
    process.wait()


@pytest.mark.skipif(not search.can_search(), reason="processes cannot be searched here")
async def test_a_fork_does_not_hold_the_watchdogs_pipe():
    killer = OrphanKiller()
    killer.after_fork()
    killer.mark({})
    watchdog = killer._watchdog
    assert watchdog
    assert watchdog.stdin
    killer.after_fork()
    assert watchdog.stdin.closed
    assert watchdog.poll() is None
    await killer.close()
