"""The descriptors that a launch hands over: closed here if it comes to nothing, else by whoever starts it.

Owns them until then. What they hold is their owners' business.
"""

from __future__ import annotations

import contextlib
import os
from typing import Self


class FileDescriptors:
    """A context that closes what it keeps, unless that was released."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def keep(self, fd: int) -> None:
        """Take an open descriptor."""
        self._kept.append(fd)
        self._closing.callback(os.close, fd)

    def memory_file(self, content: str | bytes) -> int:
        """Make a descriptor that reads so: memory that has no name."""
        fd = os.memfd_create("amplifier")
        self.keep(fd)
        os.write(fd, content if isinstance(content, bytes) else content.encode(errors="surrogateescape"))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def pipe(self) -> tuple[int, int]:
        """Make a pipe, and keep the end that is read. The other one is handed over beside, open here alone."""
        reading, writing = os.pipe()
        self.keep(reading)
        self._closing.callback(os.close, writing)
        return reading, writing

    def release(self) -> tuple[int, ...]:
        """Hand them over."""
        self._closing.pop_all()
        return tuple(self._kept)
