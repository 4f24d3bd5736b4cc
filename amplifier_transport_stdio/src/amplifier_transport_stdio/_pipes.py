"""The three pipes of a child process, in whichever of two ways the event loop allows.

Owns the interfaces between a process, its owner and the code that moves bytes. It moves none itself.
"""

from __future__ import annotations

from typing import Protocol

READ = 64 * 1024
"""Bytes read at a time: a larger buffer crosses malloc's mmap threshold and costs 9 µs a read."""


class ByteReader(Protocol):
    """What a process calls."""

    def received(self, data: bytes) -> None:
        """Take bytes from stdout."""

    def closed_stdout(self) -> None:
        """No more bytes follow, though the process may still run."""

    def exited(self) -> None:
        """The process has ended, and everything that it wrote was received."""


class Pipes(Protocol):
    """stdin for lines, stdout for the reader, stderr for error messages."""

    def write(self, line: bytes, *, now: bool) -> None:
        """Send a line: at once, or joined with the other lines of this turn of the loop.

        Raises ``BrokenPipeError`` if it is sent at once and the other end is closed.
        """

    def pause(self) -> None:
        """Leave the module's output in its pipe until ``resume``."""

    def resume(self) -> None:
        """Read on."""

    def close_stdin(self) -> None:
        """End the module's input; lines that were not sent yet are dropped. Idempotent."""

    async def finish(self) -> None:
        """Read what an ended process left in its pipes, and close them."""
