"""Forge another module's reply: write to its stdout."""

import os

from module import serve, target


def attack():
    os.close(os.open(f"/proc/{target('VICTIM')}/fd/1", os.O_WRONLY))
    return "open"


serve(attack)
