"""Paths of the host: symbolic links resolved one by one, and the folders that need special care.

Owns the rules about paths, and reads how a file begins. It gives no module access to anything.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import attrs

SCRATCH, SHARED_MEMORY = "/tmp", "/dev/shm"
"""Inside a sandbox, these two folders are the module's own."""
PSEUDO_FOLDERS = ("/proc", "/dev", "/sys")
"""The host's pseudo file systems, which no module sees. A sandbox has its own ``/proc`` and ``/dev``, no ``/sys``."""

_LINKS_MAX = 40  # as many as the operating system follows
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")


@attrs.frozen
class ResolvedPath:
    """A real path, and the symbolic links on the way to it, each with its target."""

    links: dict[str, str]
    real: str


def resolve(path: str) -> ResolvedPath:
    """Resolve a path link by link; parts of it need not exist. Raises ``OSError`` if the links form a loop."""
    links: dict[str, str] = {}
    todo, real, count = path.split("/")[::-1], "", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            real = real.rpartition("/")[0]
            continue
        here = f"{real}/{part}"
        target = _read_link(here)
        if target is None:
            real = here
            continue
        links[here] = target
        count += 1
        if count > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            real = ""
        todo += target.split("/")[::-1]
    return ResolvedPath(links, real or "/")


def is_within(path: str, folder: str) -> bool:
    """Tell whether a path is this folder or lies below it; both must be real paths."""
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def is_pseudo(path: str) -> bool:
    """Tell whether a real path lies in a pseudo file system."""
    return any(is_within(path, folder) for folder in PSEUDO_FOLDERS)


def read_head(path: str, size: int) -> bytes:
    """Read the first bytes of a file; there are none in a file that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


class SharedFolders:
    """The folders that hold files of many owners: the home, the folders above it, and the temporary folders."""

    def __init__(self) -> None:
        try:
            self._home = os.path.realpath(Path.home())
        except RuntimeError:  # neither HOME nor the accounts name one
            self._home = "/root"
        self._temporary = {*_TEMPORARY, os.path.realpath(tempfile.gettempdir())}

    def __contains__(self, folder: str) -> bool:
        """Tell whether this real folder is too much to show as a whole."""
        return folder in self._temporary or is_within(self._home, folder)


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
