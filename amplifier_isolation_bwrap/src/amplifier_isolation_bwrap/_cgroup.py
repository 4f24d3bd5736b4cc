"""Cgroups that count processes: what holds uid 0, whom RLIMIT_NPROC does not bind.

Owns one folder a launch, below a folder that the embedder names: a cgroup that has processes can have none below it, so
the kernel's own would not do. To join one costs 10 ms, so nobody joins one unasked.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import weakref
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "amplifier"
_AGE = 60.0  # seconds after which an empty cgroup is nobody's: a process that is starting has joined long before
_LAST_LOOKS, _LAST_WAIT = 20, 0.005
_OF_BWRAP = 3  # processes that are counted and are not the module's
_JOIN = 'echo 0 >"$0" && exec "$@"'


class Cgroups:
    """Makes a cgroup a launch below ``parent``, and removes those that have ended, its own and others'."""

    def __init__(self, parent: Path, processes: int) -> None:
        self._parent = parent
        self._processes = processes
        self._prefix = f"{_NAME}-{os.getpid()}-{os.urandom(4).hex()}-"
        self._numbers = itertools.count()
        weakref.finalize(self, _remove_all, parent, self._prefix)
        self._make().rmdir()  # a trial: it raises what is in the way

    def join_prefix(self) -> tuple[str, ...]:
        """Make a cgroup, and give what comes before a command that is to run in it. Raises ``Unreachable``."""
        _remove_ended(self._parent, f"{_NAME}-", _AGE)
        try:
            return ("/bin/sh", "-c", _JOIN, f"{self._make()}/cgroup.procs")
        except OSError as error:
            raise Unreachable(f"no cgroup can be made in {self._parent}: {error.strerror}") from error

    def _make(self) -> Path:
        folder = self._parent / f"{self._prefix}{next(self._numbers)}"
        folder.mkdir()
        try:
            (folder / "pids.max").write_text(str(self._processes + _OF_BWRAP))
        except OSError:
            folder.rmdir()
            raise
        return folder


def _remove_ended(parent: Path, prefix: str, age: float) -> bool:
    """Remove cgroups that have ended: those with processes refuse it. Tells whether any is left."""
    left = False
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            if folder.name.startswith(prefix) and time.time() - folder.stat().st_mtime >= age:
                try:
                    folder.rmdir()
                except OSError:
                    left = True
    return left


def _remove_all(parent: Path, prefix: str) -> None:
    """Remove all that was made; the last processes may just be dying."""
    for _ in range(_LAST_LOOKS):
        if not _remove_ended(parent, prefix, 0.0):
            break
        time.sleep(_LAST_WAIT)
