"""Starting the process of a launch: a transport's own, or the one that an isolation made of it."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from amplifier_core.hookspecs import Launch, _launch

resource = pytest.importorskip("resource", reason="Windows has no resource limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets another process's limits")


@pytest.fixture
def held():
    """A launch whose process reads the gate to its end, and then prints the word and its limit."""
    inner, gate = (end.detach() for end in socket.socketpair())
    read = f"word = open({inner}, 'rb').read()"
    code = f"import resource; {read}; print(word, resource.getrlimit(resource.RLIMIT_CORE))"

    def make(**limits):
        numbers = {getattr(resource, name): value for name, value in limits.items()}
        command = (sys.executable, "-c", code)
        return Launch(command=command, cwd="/", env={}, fds=(inner,), limits=numbers, gate=gate, word=b"go")

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
        assert process.stdout.read() == b"b'go' (0, 0)\n"
    assert closed(launch.gate)
    assert closed(launch.fds[0])


def test_the_gate_ends_even_if_somebody_else_holds_it(held):
    launch = held()
    other = os.dup(launch.gate)  # as a process has it that was forked meanwhile
    with launch.start(stdout=subprocess.PIPE) as process:
        assert process.stdout.read().startswith(b"b'go'")
    os.close(other)


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


def test_a_process_inherits_no_signal_that_is_blocked_or_ignored(monkeypatch):
    """tests/stdio/test_signals.py shows it of modules; here is what is done between `fork` and `exec`."""
    assert _launch._default_signals() == {}
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        _launch._default_signals()["preexec_fn"]()
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.signal(signal.SIGUSR2, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        signals = _launch._default_signals()
    assert signals == {}
