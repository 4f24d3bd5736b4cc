"""Measuring a tree of real processes, with both ways held against each other."""

import os
import subprocess
import sys

import pytest

from amplifier_transport_stdio import describe_host
from amplifier_transport_stdio._usage import _shared_once, by_proc, by_psutil, measure_here

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
        waited = []
        while not waited or by_proc(process.pid, exact=False)[0] < 600:  # until the middle one has ended, too
            waited.append(os.getpid())
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


def test_what_is_not_ours_to_see_is_not_counted_exactly():
    assert _shared_once(2**22 + 1) is None  # beyond the largest pid


def test_the_host_decides_how_it_is_measured(tmp_path, monkeypatch):
    assert measure_here() is by_proc
    assert measure_here(str(tmp_path / "none")) is by_psutil
    monkeypatch.setitem(sys.modules, "psutil", None)  # not installed
    assert measure_here(str(tmp_path / "none")) is None


def test_what_a_host_cannot_do_is_said(monkeypatch):
    monkeypatch.setattr("amplifier_transport_stdio.measure_here", lambda: None)
    monkeypatch.setattr("amplifier_transport_stdio.can_search", lambda: False)
    assert describe_host() == {
        "budgets": "not kept: there is no /proc, and psutil is not installed",
        "trees": "ended by process group",
        "orphans": "not found: there is no /proc, or no pidfd",
    }
