"""Read a message queue of the host."""

import ctypes
import os

from module import serve, target

libc = ctypes.CDLL("librt.so.1", use_errno=True)


def attack():
    queue = libc.mq_open(("/" + target("QUEUE")).encode(), os.O_RDONLY)
    if queue < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(queue)
    return "open"


serve(attack)
