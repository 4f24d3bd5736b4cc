"""Enter the namespaces of another process."""

import ctypes
import os

from module import first, processes, serve

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
    return path


serve(lambda: first(lambda pid=pid: enter(f"/proc/{pid}/ns/net") for pid in ["self", *processes()]))
