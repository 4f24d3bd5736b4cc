"""The look at the host that makes one plan: what leads where, what a file begins with, what a folder has.

Owns its bounds. It opens only regular files, never waits for one to open, and is not led elsewhere by a link or a file
in a place that a module may write to.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

from ._paths import is_system, is_within, open_path, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._paths import ResolvedPath

_LOOKS_MAX = 50_000  # at files and folders; an interpreter with all its libraries needs some hundred
_BYTES_MAX = 64 << 20
_ENTRIES_MAX = 1024  # of one folder
_ALTERNATIVES = "/etc/alternatives"  # the system's own links


class LedElsewhereError(Unreachable):
    """A link or a file that a module may have changed leads to a place that this module may not write to."""


class WritablePlaces:
    """The folders and files that modules may write to, since the kernel was opened."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def add(self, granted: Iterable[str]) -> None:
        """Note what was granted to a module."""
        self._places |= {word[9:] for word in granted if word.startswith("fs:write:/")}

    def around(self, path: str) -> set[str]:
        """Give the places that contain a real path. What is the system's is in none."""
        return set() if is_system(path) else {place for place in self._places if is_within(path, place)}


class Search:
    """One look. Each of its methods raises ``Unreachable`` when it has looked too often, or read too much."""

    def __init__(self, writable: WritablePlaces) -> None:
        self._writable = writable
        self._looks = 0
        self._bytes = 0

    def resolve(self, path: str, named_in: str | None = None) -> ResolvedPath:
        """Resolve a path, which ``named_in`` names if that is a file. Raises ``LedElsewhereError``."""
        self._look()
        found = resolve(path)
        places = self._writable.around(named_in) if named_in else set()
        for link in found.links:
            _check_within(link, places, named_in or path)
            places |= self._writable.around(link)
        _check_within(found.real, places, named_in or path)
        return found

    def read(self, path: str, size: int, at: int = 0) -> bytes:
        """Read a part of a regular file by its real path. There is nothing in what is no file or cannot be read.

        Raises ``Unreachable`` for a file that cannot be opened at once, as another process has a lease on it.
        """
        self._look()
        try:
            with _opened(path) as fd:
                found = os.pread(fd, size, at)
        except BlockingIOError:
            raise Unreachable(f"{path}: it cannot be read now: another process has a lease on it") from None
        except (OSError, OverflowError):
            return b""
        self._bytes += len(found)
        return found

    def is_program(self, path: str) -> bool:
        """Tell whether a path leads to a regular file that can be executed."""
        self._look()
        try:
            return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
        except (OSError, ValueError):
            return False

    def names(self, folder: str) -> list[str]:
        """List the first names in a folder; there are none in what is no folder or cannot be read."""
        self._look()
        try:
            with os.scandir(folder) as entries:
                return [entry.name for entry in itertools.islice(entries, _ENTRIES_MAX)]
        except OSError:
            return []

    def _look(self) -> None:
        self._looks += 1
        if self._looks > _LOOKS_MAX or self._bytes > _BYTES_MAX:
            raise Unreachable(
                f"what the command needs to start is too much to be found: more than {_LOOKS_MAX} files and folders, "
                f"or {_BYTES_MAX >> 20} MiB of files; declare fs:read: for it, and name a program that needs less"
            )


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open a regular file by its real path, and nothing else. Raises ``OSError``."""
    found = open_path(path)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(found)
    try:
        yield fd
    finally:
        os.close(fd)


def _check_within(path: str, places: set[str], named: str) -> None:
    """Refuse a path that the contents of these places led to, unless it is in there too, or the system's."""
    if is_system(path) or is_within(path, _ALTERNATIVES):
        return
    for place in places:
        if not is_within(path, place):
            raise LedElsewhereError(
                f"{named}: a link or a file in {place}, where a module may write, leads elsewhere; "
                "name in the command the program that is meant"
            )
