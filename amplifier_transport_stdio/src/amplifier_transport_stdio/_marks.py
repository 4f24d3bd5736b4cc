"""Marks: an environment variable by which every process that a module started is found, wherever it hid.

Owns the search through ``/proc`` and the end of what it finds. A daemon leaves its process group, its session and its
parent; its environment it nearly always keeps. As a program, this file waits for the end of its input, and ends what
carries the mark: it outlives a kernel that was killed. It is run by its name, so it imports the standard library alone.
"""

import contextlib
import os
import signal
import sys

VARIABLE = "AMPLIFIER_MODULE"
_ROUNDS = 20  # what forks faster than it is killed is left to whoever runs the host


def can_search() -> bool:
    """Tell whether processes can be searched on this host."""
    return hasattr(os, "pidfd_open") and os.path.exists("/proc/self/environ")  # noqa: PTH110 - pathlib costs 5 ms


def end_marked(marks: set[bytes]) -> int:
    """Kill each process that carries one of these marks, or a mark that begins with one and a dot; return how many."""
    ended = 0
    for _ in range(_ROUNDS):
        found = sum(_kill(int(name), marks) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
        if not found:
            break
        ended += found
    return ended


def _kill(pid: int, marks: set[bytes]) -> bool:
    if not _is_marked(pid, marks):
        return False
    with contextlib.suppress(OSError):  # it has ended
        pidfd = os.pidfd_open(pid)
        try:
            if _is_marked(pid, marks):  # and nobody else has its pid by now
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return True


def _is_marked(pid: int, marks: set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            environ = b"\0" + file.read()
    except OSError:  # it has ended, or is somebody else's
        return False
    _, found, rest = environ.partition(b"\0" + VARIABLE.encode() + b"=")
    mark = rest.partition(b"\0")[0]
    return bool(found) and (mark in marks or mark.partition(b".")[0] in marks)


def wait_and_end(mark: bytes) -> None:
    """Wait for the end of standard input, then end what carries the mark."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end_marked({mark})


if __name__ == "__main__":
    wait_and_end(os.fsencode(sys.argv[1]))
