"""Marks: an environment variable by which every process that a module started is found, wherever it hid.

Owns the search through ``/proc`` and the end of what it finds. A daemon leaves its process group, its session and its
parent; its environment it nearly always keeps. As a program, this file waits for the end of its input, and ends what
carries the mark: it outlives a kernel that was killed. It is run by its name, so it imports the standard library alone.
"""

import contextlib
import os
import signal
import sys
import time

VARIABLE = "AMPLIFIER_MODULE"
_ROUNDS = 20  # what forks faster than it is killed is left to whoever runs the host
_CLEAN_ROUNDS = 2
_PAUSE = 0.002  # seconds between two rounds
_UNMARKED, _UNSURE, _KILLED = range(3)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the flags in /proc/PID/stat


def can_search() -> bool:
    """Tell whether processes can be searched on this host."""
    return hasattr(os, "pidfd_open") and os.path.exists("/proc/self/environ")  # noqa: PTH110 - pathlib costs 5 ms


def end_marked(marks: set[bytes]) -> int:
    """Kill each process that carries one of these marks, or a mark that begins with one and a dot; return how many.

    It looks until it has found nothing twice: a process that forks and ends while others are looked at leaves a child
    that is not on the list yet.
    """
    ended = clean = 0
    for _ in range(_ROUNDS):
        looked = [_kill(int(name), marks) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
        ended += looked.count(_KILLED)
        clean = 0 if any(looked) else clean + 1
        if clean == _CLEAN_ROUNDS:
            break
        time.sleep(_PAUSE)
    return ended


def _kill(pid: int, marks: set[bytes]) -> int:
    """Look at one process: it is not marked, cannot be judged yet, or is killed."""
    looked = _look(pid, marks)
    if looked != _KILLED:
        return looked
    with contextlib.suppress(OSError):  # it has ended
        pidfd = os.pidfd_open(pid)
        try:
            if _look(pid, marks) == _KILLED:  # and nobody else has its pid by now
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return _KILLED


def _look(pid: int, marks: set[bytes]) -> int:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            environ = b"\0" + file.read()
        if environ == b"\0":
            return _UNSURE if _is_starting(pid) else _UNMARKED
    except OSError:  # it has ended, or is somebody else's
        return _UNMARKED
    _, found, rest = environ.partition(b"\0" + VARIABLE.encode() + b"=")
    mark = rest.partition(b"\0")[0]
    return _KILLED if found and (mark in marks or mark.partition(b".")[0] in marks) else _UNMARKED


def _is_starting(pid: int) -> bool:
    """Tell whether a process that shows no environment may have one: in the middle of `exec` none can be read."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        state, *fields = file.read().rpartition(b")")[2].split()
    flags, end_of_environment = int(fields[5]), int(fields[47])
    return state not in b"ZX" and not flags & _KERNEL_THREAD and not end_of_environment


def wait_and_end(mark: bytes) -> None:
    """Wait for the end of standard input, then end what carries the mark."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end_marked({mark})


if __name__ == "__main__":
    wait_and_end(os.fsencode(sys.argv[1]))
