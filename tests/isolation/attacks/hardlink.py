"""Give the secret a second name in a granted folder."""

import os
from pathlib import Path

from module import serve, target


def attack():
    name = Path(target("OPEN"), "hard")
    os.link(target("SECRET"), name)
    return name.read_text()


serve(attack)
