"""Replace the granted folder by a link that leads elsewhere, for the next start to follow."""

import os

from module import serve, target


def attack():
    os.rename(target("OPEN"), target("OPEN") + "-away")
    os.symlink(target("OUTSIDE"), target("OPEN"))
    return os.readlink(target("OPEN"))


serve(attack)
