"""Ask for a signal when others change files of the system."""

import fcntl
import os

from module import serve


def attack():
    folder = os.open("/usr/lib", os.O_RDONLY)
    try:
        fcntl.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_CREATE)
    finally:
        os.close(folder)
    return "a watch"


serve(attack)
