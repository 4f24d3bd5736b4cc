"""Paths of the host: symbolic links resolved one by one, and the folders that need special care.

Owns the rules about paths, and opens one without following a link. It gives no module access to anything.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import attrs

from amplifier_core import Unreachable

SCRATCH, SHARED_MEMORY = "/tmp", "/dev/shm"
"""Inside a sandbox, these two folders are the module's own."""
PSEUDO_FOLDERS = ("/proc", "/dev", "/sys")
"""The host's pseudo file systems, which no module sees. A sandbox has its own ``/proc`` and ``/dev``, no ``/sys``."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
"""The folders of the system's programs and libraries: every module sees them."""

_BELOW_SYSTEM = tuple(f"{folder}/" for folder in SYSTEM)
_LINKS_MAX = 40  # as many as the operating system follows
_PATH_MAX = 4096  # characters, as for the operating system
_PARTS_MAX = 256  # of a path: each of them is looked at
_SHOWN = 80  # characters of a path that is too long
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")


@attrs.frozen
class ResolvedPath:
    """A real path, and the symbolic links on the way to it, each with its target."""

    links: dict[str, str]
    real: str


def resolve(path: str) -> ResolvedPath:
    """Resolve a path link by link; parts need not exist. Raises ``Unreachable`` for a loop or beyond a bound."""
    _check_length(path, path)
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
            raise Unreachable(f"{path}: {os.strerror(errno.ELOOP)}")
        if target.startswith("/"):
            real = ""
        todo += target.split("/")[::-1]
        _check_length("/".join((real, *todo)), path)
    return ResolvedPath(links, real or "/")


def is_within(path: str, folder: str) -> bool:
    """Tell whether a path is this folder or lies below it; both must be real paths."""
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def is_pseudo(path: str) -> bool:
    """Tell whether a real path lies in a pseudo file system."""
    return any(is_within(path, folder) for folder in PSEUDO_FOLDERS)


def is_system(path: str) -> bool:
    """Tell whether a real path is the system's."""
    return path.startswith(_BELOW_SYSTEM) or path in SYSTEM


def open_path(real: str) -> int:
    """Open a real path of any type, to refer to it and not to read it. Raises ``OSError`` if a link is on the way.

    It goes folder by folder and follows nothing: whatever was put there meanwhile, only what has this path is opened.
    """
    fd = os.open("/", os.O_PATH)
    *folders, name = real.split("/")[1:]
    for folder in folders:
        fd = _open_in(fd, folder, os.O_DIRECTORY)
    fd = _open_in(fd, name or ".")
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), real)
    return fd


def _open_in(folder: int, name: str, more: int = 0) -> int:
    """Open what has this name in a folder, and close the folder."""
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | more, dir_fd=folder)
    finally:
        os.close(folder)


def _check_length(path: str, named: str) -> None:
    if len(path) > _PATH_MAX or path.count("/") > _PARTS_MAX:
        raise Unreachable(
            f"{named[:_SHOWN]}…: expected a path of at most {_PATH_MAX} characters and {_PARTS_MAX} parts"
        )


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
