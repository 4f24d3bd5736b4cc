"""Persist: change its own program."""

from pathlib import Path

from module import serve


def attack():
    with Path(__file__).open("a") as file:
        return file.write("# changed\n")


serve(attack)
