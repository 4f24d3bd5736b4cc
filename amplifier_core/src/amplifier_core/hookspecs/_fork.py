"""Forks: a process that was forked from the kernel's must not hold open what the kernel has open.

Owns the list of what is open, and closes it in the child. The child of a fork has copies of all descriptors. As long as
it has them, a module sees no end of its input, and a server no end of its connection.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol

FORKED = "the kernel belongs to the process from which this one was forked: make another kernel here"
"""Why a kernel takes no call in the child."""


class Forkable(Protocol):
    """An object that has something open: a pipe, a socket, a file."""

    def after_fork(self) -> None:
        """Close it in the child, where no loop and no other thread of the parent's runs. The parent goes on with it.

        So nothing may be sent or flushed, and no descriptor taken from the event loop, which the parent still watches.
        """


def watch_forks(owner: Forkable) -> None:
    """Call ``owner.after_fork`` in every process that ``os.fork`` makes of this one, as long as the object lives."""
    _owners.add(owner)


def close_socket(socket: object) -> None:
    """Close the child's copy of a socket that a transport of asyncio's has: its number stays taken, by /dev/null."""
    fd = socket.fileno() if hasattr(socket, "fileno") else -1
    if fd >= 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd, inheritable=False)
        os.close(null)


def _leave() -> None:
    for owner in list(_owners):
        with contextlib.suppress(Exception):  # foreign code, and the others have to be closed
            owner.after_fork()


_owners: weakref.WeakSet[Forkable] = weakref.WeakSet()  # the system's forks are the whole process's
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    os.register_at_fork(after_in_child=_leave)
