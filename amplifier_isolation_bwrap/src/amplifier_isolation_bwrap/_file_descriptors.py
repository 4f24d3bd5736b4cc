"""The file descriptors that a launch hands over to the process that it starts.

Owns them until the launch is complete, and closes them if it fails. It does not know what they are for.
"""

from __future__ import annotations

import contextlib
import os
import socket


class FileDescriptors(contextlib.ExitStack):
    """A context that closes what it keeps at its end, unless ``release`` was called."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[int] = []

    def keep(self, fd: int) -> None:
        """Take over an open file descriptor."""
        self._kept.append(fd)
        self.callback(os.close, fd)

    def memory_file(self, content: str | bytes) -> int:
        """Make a file in memory, without a name, and keep a file descriptor that reads this content."""
        fd = os.memfd_create("amplifier")
        self.keep(fd)
        os.write(fd, content if isinstance(content, bytes) else content.encode(errors="surrogateescape"))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def gate(self) -> tuple[int, int]:
        """Make two connected sockets, and keep the first. ``release`` does not return the other: no child gets it."""
        inner, outer = (each.detach() for each in socket.socketpair())
        self.keep(inner)
        self.callback(os.close, outer)
        return inner, outer

    def release(self) -> tuple[int, ...]:
        """Hand over what was kept: from now on the caller closes it, and the outer socket of each gate."""
        self.pop_all()
        return tuple(self._kept)
