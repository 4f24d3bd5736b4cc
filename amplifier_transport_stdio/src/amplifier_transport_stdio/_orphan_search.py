"""The search for orphans, by a mark in the environment that every process inherits.

Owns the search through ``/proc``, and kills what it finds. A daemon leaves its process group, its session and its
parent, and nearly always keeps its environment. As a program, this file is the watchdog: it waits for the end of its
input, and then kills what carries the mark. It is started by its path, so it imports the standard library alone.
"""

import contextlib
import os
import signal
import sys
import time

VARIABLE = "AMPLIFIER_MODULE"
_ROUNDS = 20  # processes that fork faster than they are killed are left
_CLEAN_ROUNDS = 2
_PAUSE = 0.002  # seconds between two rounds
_UNMARKED, _UNSURE, _KILLED = range(3)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the flags in /proc/PID/stat


def can_search() -> bool:
    """Tell whether processes can be searched on this host."""
    return hasattr(os, "pidfd_open") and os.path.exists("/proc/self/environ")


def kill_marked(marks: set[bytes]) -> int:
    """Kill each process that carries one of these marks, or a mark that begins with one and a dot; return how many.

    It searches until two searches in a row have found nothing: a process that forks and ends during a search leaves a
    child that was not listed yet.
    """
    killed = clean = 0
    for _ in range(_ROUNDS):
        looked = [_kill(int(name), marks) for name in os.listdir("/proc") if name.isdigit()]
        killed += looked.count(_KILLED)
        clean = 0 if any(looked) else clean + 1
        if clean == _CLEAN_ROUNDS:
            break
        time.sleep(_PAUSE)
    return killed


def _kill(pid: int, marks: set[bytes]) -> int:
    """Kill one process if it is marked; return what was found."""
    looked = _look(pid, marks)
    if looked != _KILLED:
        return looked
    with contextlib.suppress(OSError):  # it has ended
        pidfd = os.pidfd_open(pid)
        try:
            if _look(pid, marks) == _KILLED:  # and the pid was not reused meanwhile
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return _KILLED


def _look(pid: int, marks: set[bytes]) -> int:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = b"\0" + file.read()
        if environ == b"\0":
            return _UNSURE if _is_starting(pid) else _UNMARKED
    except OSError:  # it has ended, or belongs to another user
        return _UNMARKED
    _, found, rest = environ.partition(b"\0" + VARIABLE.encode() + b"=")
    mark = rest.partition(b"\0")[0]
    return _KILLED if found and (mark in marks or mark.partition(b".")[0] in marks) else _UNMARKED


def _is_starting(pid: int) -> bool:
    """Tell whether a process without a readable environment is in the middle of ``exec``, and may have one."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        state, *fields = file.read().rpartition(b")")[2].split()
    flags, end_of_environment = int(fields[5]), int(fields[47])
    return state not in b"ZX" and not flags & _KERNEL_THREAD and not end_of_environment


def watch(mark: bytes) -> None:
    """Wait for the end of stdin, then kill what carries the mark."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    kill_marked({mark})


if __name__ == "__main__":
    watch(os.fsencode(sys.argv[1]))
