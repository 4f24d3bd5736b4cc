"""A file that is only appended to, on POSIX: how it is opened, and locked for a moment.

Owns the flags and the lock. ``windows_file`` does the same on Windows.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

fcntl: Any = importlib.import_module("fcntl")  # what type checkers know of it differs by system
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe without a reader does not block


def open_to_append(path: Path) -> int:
    """Open a file, or make one that only its owner can read. Each ``write`` goes to its end as a whole."""
    return os.open(path, _FLAGS, 0o600)


@contextlib.contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold a lock that every kernel asks for. Raises ``BlockingIOError`` if somebody else holds it."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the file was rotated, and its lock is gone with its descriptor
            fcntl.flock(fd, fcntl.LOCK_UN)
