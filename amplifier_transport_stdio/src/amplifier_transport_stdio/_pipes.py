"""Pipes: what goes to a child process, and what comes from it, whichever way the event loop allows.

Owns the words that a process, its owner and the two ways of moving bytes have in common. It moves none itself.
"""

from __future__ import annotations

from typing import Protocol

READ = 64 * 1024
"""Bytes read at a time: a larger buffer crosses malloc's mmap threshold and costs 9 µs a read."""


class Reader(Protocol):
    """What a process tells its owner."""

    def received(self, data: bytes) -> None:
        """Bytes came on stdout."""

    def closed_stdout(self) -> None:
        """No more will come, though the process may live."""

    def exited(self) -> None:
        """The process is gone; everything that it wrote was received before."""


class Write(Protocol):
    """How a line is sent."""

    def __call__(self, line: bytes, *, now: bool) -> None:
        """Send a line: at once, or joined with whatever else is sent in this tick of the loop.

        Raises ``BrokenPipeError`` if it is sent at once and nobody is there to read it.
        """


class Pipes(Protocol):
    """The three pipes of one process: stdin for lines, stdout for its reader, stderr for whoever explains errors."""

    @property
    def write(self) -> Write:
        """How a line is sent."""

    def pause(self) -> None:
        """Leave what the module writes in its pipe until ``resume``."""

    def resume(self) -> None:
        """Read on."""

    def close_stdin(self) -> None:
        """Have the module read the end of its input; what was not sent yet goes nowhere. Idempotent."""

    async def finish(self) -> None:
        """Hear what a process that has ended left in its pipes, and close them."""
