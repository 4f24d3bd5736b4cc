"""The search for orphans, by a mark in the environment that every process inherits.

Owns the search through ``/proc``, and kills what it finds. A daemon leaves its process group, its session and its
parent, and nearly always keeps its environment. As a program, this file is the watchdog: it waits for the end of the
kernel, and then kills what carries the mark. It is started by its path, so it imports the standard library alone, and
of that no contextlib: each kernel starts one, and it would take a quarter of the time.
"""

import os
import select
import signal
import sys
import time

VARIABLE = "AMPLIFIER_MODULE"
_ROUNDS = 20  # processes that fork faster than they are killed are left
_CLEAN_ROUNDS = 2
_PAUSE = 0.002  # seconds between two rounds
_UNMARKED, _UNSURE, _KILLED = range(3)
_ENVIRONMENT = 256 * 1024  # bytes of an environment that are searched: the mark is put in front
_IMAGE_PAUSE = 1.0  # seconds between two looks at a kernel that has closed its pipe
_STARTING_PAUSE = 0.05
_STARTING_ROUNDS = 200  # of that length, while a process that a killed kernel was starting may be left
_LAST_ROUNDS = 6  # of that length, when none is: it shows its environment only at the end of its `exec`
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
    try:
        pidfd = os.pidfd_open(pid)
        try:
            if _look(pid, marks) == _KILLED:  # and the pid was not reused meanwhile
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    except OSError:  # pragma: no cover - it has ended meanwhile
        pass
    return _KILLED


def _look(pid: int, marks: set[bytes]) -> int:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = b"\0" + file.read(_ENVIRONMENT)
        if environ == b"\0":
            return _UNSURE if _is_starting(pid) else _UNMARKED
    except OSError:  # it has ended, or belongs to another user
        return _UNMARKED
    _, found, rest = environ.partition(b"\0" + VARIABLE.encode() + b"=")
    mark = rest.partition(b"\0")[0]
    return _KILLED if found and (mark in marks or mark.partition(b".")[0] in marks) else _UNMARKED


def _is_starting(pid: int) -> bool:
    """Tell whether a process without a readable environment is in the middle of ``exec``, and may have one."""
    state, *fields = _stat(pid)
    flags, end_of_environment = int(fields[5]), int(fields[47])
    return state not in b"ZX" and not flags & _KERNEL_THREAD and not end_of_environment


def _stat(pid: int) -> list[bytes]:
    """Give the fields of ``/proc/PID/stat`` from the state on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def image(pid: int) -> bytes:
    """Give the addresses of a process's code and stack, which ``exec`` changes; nothing if it has ended."""
    try:
        return b" ".join(_stat(pid)[23:26])
    except OSError:
        return b""


def watch(mark: bytes, kernel: int, pidfd: int, started: bytes) -> None:
    """Wait for the kernel's end, then kill what carries the mark.

    The pidfd tells of the kernel's end, and another image than ``started`` of its ``exec``. stdin is a pipe that the
    kernel, and a process which it is starting, hold open until they end or ``exec``.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _wait(kernel, pidfd, started)
    held = select.poll()
    held.register(0, select.POLLIN)
    rounds = 0
    kill_marked({mark})
    while rounds < _STARTING_ROUNDS and not held.poll(_STARTING_PAUSE * 1000):
        rounds += 1
        kill_marked({mark})
    for _ in range(_LAST_ROUNDS):
        time.sleep(_STARTING_PAUSE)
        kill_marked({mark})


def _wait(kernel: int, pidfd: int, started: bytes) -> None:
    """Wait until the kernel has ended, or is another program. Its pipe may end before: some close all descriptors."""
    ends = select.poll()
    for fd in (0, pidfd):
        ends.register(fd, select.POLLIN)
    ready = ends.poll()
    ends.unregister(0)
    while all(fd != pidfd for fd, _ in ready) and image(kernel) == started:
        ready = ends.poll(_IMAGE_PAUSE * 1000)


if __name__ == "__main__":
    watch(sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode())
