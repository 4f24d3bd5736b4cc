"""Plant a link in a granted folder, and read through it."""

from pathlib import Path

from module import serve, target


def attack():
    link = Path(target("OPEN"), "link")
    link.symlink_to(target("SECRET"))
    return link.read_text()


serve(attack)
