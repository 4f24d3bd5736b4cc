"""Leave a core file, which holds what a process had in memory, in a folder of the host."""

import os
import resource
import signal
from pathlib import Path

from module import serve, target


def attack():
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    os.chdir(target("OPEN"))
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGQUIT)
    os.waitpid(child, 0)
    for file in Path().glob("core*"):
        file.unlink()
        return file.name
    raise OSError("no core file")


serve(attack)
