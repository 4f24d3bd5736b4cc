"""Cgroups that limit the number of processes, for uid 0: RLIMIT_NPROC does not bind it.

Owns one folder for each launch, below a folder that the embedder names. The kernel's own cgroup cannot be that folder:
a cgroup with processes can have no child. To join a cgroup costs 10 ms, so there is none unless the embedder asks.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import weakref
from pathlib import Path

from amplifier_core import Unreachable

_NAME = "amplifier"
_AGE = 60.0  # seconds; an empty cgroup that is older has ended: a process that starts joins much earlier
_LAST_ATTEMPTS, _LAST_WAIT = 20, 0.005
_OF_BWRAP = 3  # processes of bwrap, which count too
_JOIN = 'echo 0 >"$0" && exec "$@"'


class Cgroups:
    """Makes a cgroup below ``parent`` for each launch. It removes those that have ended, of any kernel."""

    def __init__(self, parent: Path, processes: int) -> None:
        self._parent = parent
        self._processes = processes
        self._prefix = f"{_NAME}-{os.getpid()}-{os.urandom(4).hex()}-"
        weakref.finalize(self, _remove_all, parent, self._prefix)
        self._make().rmdir()  # a trial: it raises OSError if no cgroup can be made here

    def join_prefix(self) -> tuple[str, ...]:
        """Make a cgroup, and return the words before a command that shall run in it. Raises ``Unreachable``."""
        _remove_ended(self._parent, f"{_NAME}-", _AGE)
        try:
            return ("/bin/sh", "-c", _JOIN, f"{self._make()}/cgroup.procs")
        except OSError as error:
            raise Unreachable(f"no cgroup can be made in {self._parent}: {error.strerror}") from error

    def _make(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))
        try:
            (folder / "pids.max").write_text(str(self._processes + _OF_BWRAP))
        except OSError:
            folder.rmdir()
            raise
        return folder


def _remove_ended(parent: Path, prefix: str, age: float) -> bool:
    """Remove cgroups without processes; one with processes cannot be removed. Tell whether any is left."""
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
    """Remove every cgroup of this kernel. The last processes may still be ending, so try several times."""
    for _ in range(_LAST_ATTEMPTS):
        if not _remove_ended(parent, prefix, 0.0):
            break
        time.sleep(_LAST_WAIT)
