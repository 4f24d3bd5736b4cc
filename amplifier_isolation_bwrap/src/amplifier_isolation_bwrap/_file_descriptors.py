"""The file descriptors that a launch hands over to the process that it starts.

Owns them until the launch is complete, and closes them if it fails. It does not know what they are for.
"""

from __future__ import annotations

import contextlib
import os


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

    def pipe(self) -> tuple[int, int]:
        """Make a pipe, and keep the end to read from. ``release`` does not return the other end: no child gets it."""
        reading, writing = os.pipe()
        self.keep(reading)
        self.callback(os.close, writing)
        return reading, writing

    def release(self) -> tuple[int, ...]:
        """Hand over what was kept: from now on the caller closes it, and the writing end of each pipe."""
        self.pop_all()
        return tuple(self._kept)
