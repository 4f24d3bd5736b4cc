"""Read the kernel's environment from any process."""

from pathlib import Path

from module import first, processes, serve, target


def look(pid):
    if target("TOKEN_NAME").encode() not in Path(f"/proc/{pid}/environ").read_bytes():
        raise OSError("not there")
    return pid


serve(lambda: first(lambda pid=pid: look(pid) for pid in processes()))
