"""Measuring a tree of real processes, with both ways held against each other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from amplifier_core import Oom
from amplifier_transport_stdio import _usage, describe_host
from amplifier_transport_stdio._usage import _children, _memory, _shared_once, by_proc, by_psutil, measure_here

TREE = """
import os, subprocess, sys, time
held = bytearray(30_000_000)
end = time.process_time() + 0.2
while time.process_time() < end: pass
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, __file__], stdin=0)
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"])
else:
    print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree(tmp_path):
    """A process of 30 MB and 200 ms, one that it waited for of 300 ms, and a child of 30 MB and 200 ms."""
    file = tmp_path / "tree.py"
    file.write_text(TREE)
    with subprocess.Popen([sys.executable, file, "root"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        # until the middle one has ended, and was waited for: on the way its time is counted nowhere
        while len(psutil.Process(process.pid).children()) > 1 or by_proc(process.pid, exact=False)[0] < 600:
            time.sleep(0.01)
        yield process.pid
        process.communicate()


@pytest.mark.parametrize("measure", [by_proc, by_psutil])
@pytest.mark.parametrize("exact", [False, True])
def test_a_tree_is_measured_whole(tree, measure, exact):
    cpu_ms, memory_bytes = measure(tree, exact=exact)
    assert 600 <= cpu_ms < 30_000
    assert 60_000_000 < memory_bytes < 200_000_000


@pytest.mark.parametrize("measure", [by_proc, by_psutil])
def test_what_has_ended_uses_nothing(measure):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert measure(ended.pid, exact=True) == (0, 0)


def test_what_is_not_ours_to_see_is_not_counted_exactly(monkeypatch):
    assert _shared_once(2**22 + 1) == {}  # beyond the largest pid
    assert _children(2**22 + 1, "1") == []
    monkeypatch.setattr(_usage, "_read", lambda path: b"")  # a process without memory
    assert _shared_once(1) == {}


def test_threads_are_looked_at_for_what_they_have_started_and_too_many_are_not_measured(monkeypatch):
    code = (
        "import subprocess, threading as t\nx = t.Thread(target=lambda: subprocess.run(['sleep', '600'])); x.start(); "
    )
    code += "print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        (child,) = found(process.pid)
        alone = by_proc(child, exact=False)[1]
        assert by_proc(process.pid, exact=False)[1] > alone
        monkeypatch.setattr(_usage, "MOST", 2)
        with pytest.raises(Oom, match="more than 2 processes and threads"):
            by_proc(process.pid, exact=False)
        os.kill(child, signal.SIGKILL)
        process.communicate(b"\n")


def found(pid):
    """Wait until a thread of the process has started something."""
    while True:
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid) and (started := _children(pid, task.name)):
                return started


def test_page_tables_and_what_is_swapped_out_are_memory(monkeypatch):
    status = b"Name:\tVmRSS: 7 kB\nVmRSS:\t    10 kB\nVmPTE:\t 20 kB\nVmSwap:\t  40 kB\nHugetlbPages:\t 80 kB\n"
    rollup = b"00-ff ---p 0 00:00 0 [rollup]\nRss: 10 kB\nPss: 3 kB\nPss_Anon: 3 kB\nSwap: 40 kB\nSwapPss: 5 kB\n"
    monkeypatch.setattr(_usage, "_read", lambda path: rollup if path.endswith("rollup") else status)
    assert _memory(1, exact=False) == 150 * 1024
    assert _memory(1, exact=True) == (3 + 20 + 5 + 80) * 1024


def test_the_page_tables_of_a_process_count():
    """It reads one page in each 2 MiB of 32 GiB: all of them are the same page, and each needs a table of its own."""
    code = """if True:
    import mmap
    no_reserve = 0x4000  # mmap has a name for it since Python 3.13
    m = mmap.mmap(-1, 32 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve, mmap.PROT_READ)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    sum(m[n] for n in range(0, 32 << 30, 2 << 20))
    print("ready", flush=True)
    input()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        for exact in (False, True):
            assert by_proc(process.pid, exact=exact)[1] > 64 << 20
        process.communicate(b"\n")


def test_the_host_decides_how_it_is_measured(tmp_path, monkeypatch):
    assert measure_here() is by_proc
    assert measure_here(str(tmp_path / "none")) is by_psutil
    monkeypatch.setitem(sys.modules, "psutil", None)  # not installed
    assert measure_here(str(tmp_path / "none")) is None


def test_what_a_host_cannot_do_is_said(monkeypatch):
    monkeypatch.setattr("amplifier_transport_stdio._process_tree.measure_here", lambda: None)
    monkeypatch.setattr("amplifier_transport_stdio._process_tree.can_search", lambda: False)
    assert describe_host() == {
        "budgets": "not kept: there is no /proc, and psutil is not installed",
        "trees": "ended by process group",
        "orphans": "not found: there is no /proc, or no pidfd",
    }
