"""Write a file that is larger than the limit."""

import signal
from pathlib import Path

from module import serve, target


def attack():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Path(target("OPEN"), "big").open("wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(9))
    return "9 MiB"


serve(attack)
