"""Take a lease on a file that the kernel reads too: whoever opens it then waits for this module."""

import fcntl

from module import serve


def attack():
    with open(__file__, "rb") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return "a lease"


serve(attack)
