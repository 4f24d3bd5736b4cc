"""Answer in another module's name: write to its end of the pipe."""

import os

from module import serve, target


def attack():
    os.close(os.open(f"/proc/{target('VICTIM')}/fd/1", os.O_WRONLY))
    return "open"


serve(attack)
