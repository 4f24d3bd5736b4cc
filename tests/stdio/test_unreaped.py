"""CPU time of children that nobody waits for: what is certain is estimated, and who waits is charged nothing more."""

import subprocess
import sys

import pytest

from amplifier_transport_stdio._unreaped import Seen, Unreaped
from amplifier_transport_stdio._usage import by_proc

FORKS = """
import os, signal, sys, time
if sys.argv[1] == "ignore":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.monotonic() + 60
print("ready", flush=True)
while time.monotonic() < end:
    if not os.fork():
        end = time.process_time() + 0.006  # less than a tick
        while time.process_time() < end:
            pass
        os._exit(0)
    try:
        os.wait()
    except ChildProcessError:
        pass
"""


def samples(how, ready):
    """Sample a process that has one short child after another, until the samples are ready."""
    unreaped = Unreaped()
    with subprocess.Popen([sys.executable, "-c", FORKS, how], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        while not ready(cpu_ms := by_proc(process.pid, exact=False, unreaped=unreaped)[0], unreaped.lost_ms):
            pass
        process.kill()
    return cpu_ms, unreaped.lost_ms


def test_children_that_nobody_waits_for_are_estimated():
    cpu_ms, lost_ms = samples("ignore", lambda cpu_ms, lost_ms: lost_ms > 200)
    assert cpu_ms >= lost_ms


def test_children_that_somebody_waits_for_are_not():
    cpu_ms, lost_ms = samples("wait", lambda cpu_ms, lost_ms: cpu_ms > 500)
    assert lost_ms < cpu_ms / 20  # a sample between an end and its account may see a little of a child twice


def process(own_ms=0.0, waited_ms=0.0, parent=1, started=b"1"):
    return Seen(started, parent, running=False, own_ms=own_ms, waited_ms=waited_ms)


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        ({1: process()}, True),
        ({1: process(), 2: process(1, started=b"2")}, True),  # its pid is another one's
        ({1: process(waited_ms=50)}, False),
        ({1: process(), 2: process(60)}, False),  # it has not ended
        ({1: process(started=b"2")}, False),  # another parent: the child's own has ended, too
        ({3: process()}, False),
    ],
)
def test_a_child_that_has_ended_is_lost_if_its_parent_did_not_get_its_time(after, lost):
    unreaped = Unreaped()
    unreaped.add({1: process(), 2: process(50)}, 10**9)
    unreaped.add(after, 10**9)
    assert unreaped.lost_ms == 50 * lost


def test_a_child_whose_parent_was_not_seen_is_not_lost():
    unreaped = Unreaped()
    unreaped.add({2: process(50)}, 10**9)
    unreaped.add({1: process()}, 10**9)
    assert unreaped.lost_ms == 0


def test_a_sample_adds_no_more_than_the_time_that_has_passed():
    unreaped = Unreaped()
    unreaped.add({1: process(), **{pid: process(10**6) for pid in range(2, 9)}}, 1)
    unreaped.add({1: process()}, 1)
    assert 0 < unreaped.lost_ms < 10**5


def test_the_total_never_falls():
    unreaped = Unreaped()
    assert [unreaped.total(cpu_ms) for cpu_ms in (5.0, 3.0, 7.0)] == [5, 5, 7]
