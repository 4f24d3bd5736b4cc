"""Paths of the host: what lies between a name and the real thing, and which folders are too much to show.

Owns looking. It opens nothing to anybody.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import attrs

OWN = ("/proc", "/dev", "/sys")
"""What a module has of its own, or not at all, and never the host's."""

_LINKS_MAX = 40  # as many as the operating system follows
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - named to be refused


@attrs.frozen
class ResolvedPath:
    """The way to a path: the symbolic links on it with their targets, and what it leads to."""

    links: dict[str, str]
    real: str


def resolve(path: str) -> ResolvedPath:
    """Resolve a path link by link. Raises ``OSError`` when links go in a circle; what is not there is not looked at."""
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
        target = _target(here)
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
    """Tell whether a path is a folder or lies in it; both are real."""
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def is_pseudo(path: str) -> bool:
    """Tell whether a real path is where a module has its own things."""
    return any(is_within(path, folder) for folder in OWN)


class SharedFolders:
    """The folders that hold what nobody named: the home with what is above it, and those that everyone shares."""

    def __init__(self) -> None:
        try:
            self._home = os.path.realpath(Path.home())
        except RuntimeError:  # nobody says where it is
            self._home = "/root"
        self._shared = {*_TEMPORARY, os.path.realpath(tempfile.gettempdir())}

    def __contains__(self, folder: str) -> bool:
        """Tell whether showing this real folder as a whole would show too much."""
        return folder in self._shared or is_within(self._home, folder)


def _target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
