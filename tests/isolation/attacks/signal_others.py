"""Signal a process that it did not start."""

import os

from module import serve, target


def attack():
    os.kill(int(target("VICTIM")), 0)
    return "it would have been delivered"


serve(attack)
