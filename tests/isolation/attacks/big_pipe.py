"""Make a pipe bigger, which takes memory that no process has and a quota that the user shares."""

import fcntl
import os

from module import serve


def attack():
    reading, writing = os.pipe()
    try:
        return fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    finally:
        os.close(reading)
        os.close(writing)


serve(attack)
