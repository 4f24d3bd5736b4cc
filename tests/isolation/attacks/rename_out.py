"""Rename what was opened, so that its name leads elsewhere the next time."""

import os

from module import serve, target


def attack():
    os.rename(target("OPEN"), target("OPEN") + "-away")
    os.symlink(target("OUTSIDE"), target("OPEN"))
    return os.readlink(target("OPEN"))


serve(attack)
