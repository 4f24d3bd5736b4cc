"""Start more processes than the limit."""

import os
import signal

from module import serve


def attack():
    pids = []
    try:
        while len(pids) < 100:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            pids.append(pid)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return len(pids)


serve(attack)
