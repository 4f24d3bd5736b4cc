"""How a process ended, from a pidfd: Linux 6.15 and later keep it there, also when somebody else has reaped it.

Owns the question to the system. Who reaps a process, and when, is the tree's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import struct
from typing import Any

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None
_GET_INFO = 0xC040FF0B  # PIDFD_GET_INFO, of a struct of 64 bytes
_INFO = struct.Struct("=Q52xi")  # of it: the mask of what is known, and the status
_EXIT = 1 << 3  # PIDFD_INFO_EXIT


def open_pidfd(pid: int) -> int | None:
    """Open a pidfd; ``None`` if the process is gone, or there is none on this system or it is not allowed here."""
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def read_status(pidfd: int | None) -> int | None:
    """Give the status of an ended process, as ``os.waitpid`` does; ``None`` if the system cannot tell."""
    if pidfd is None or fcntl is None:
        return None
    info = bytearray(_INFO.pack(_EXIT, 0))
    with contextlib.suppress(OSError):
        fcntl.ioctl(pidfd, _GET_INFO, info)
        known, status = _INFO.unpack(info)
        return status if known & _EXIT else None
    return None


def is_signal(status: int | None, shell_code: int) -> bool:
    """Tell whether a status is the signal that a shell, or a sandbox, shows as this exit code."""
    return status is not None and os.WIFSIGNALED(status) and 128 + os.WTERMSIG(status) == shell_code
