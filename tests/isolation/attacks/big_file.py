"""Write a file that is larger than a module may."""

import signal
from pathlib import Path

from module import serve, target


def attack():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Path(target("OPEN"), "big").open("wb") as file:
        for _ in range(9):
            file.write(bytes(1 << 20))
    return "9 MiB"


serve(attack)
