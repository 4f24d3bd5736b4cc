"""The queue of lines between the kernel's thread and the sink's: bounded in number and in bytes.

Owns its bounds. It does not read the lines.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

LINE_MAX = 1024 * 1024
"""Bytes of a line that is taken. To read a longer one would keep the interpreter from the event loop too long."""

BYTES_MAX = 64 * 1024 * 1024
"""Bytes of all lines that wait."""


class Lines:
    """Lines that wait. One thread puts them, another one takes them. Each counter has one thread that changes it."""

    def __init__(self, most: int) -> None:
        self.dropped: int = 0
        """Lines that were not taken: too many waited, or one was too long."""
        self._most = most
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._put = 0  # bytes
        self._taken = 0
        self._ends = 0

    def put(self, line: bytes) -> None:
        """Take a line, or count it as dropped. Never waits."""
        size = len(line)
        if self._lines.qsize() >= self._most or size > LINE_MAX or self._put - self._taken + size > BYTES_MAX:
            self.dropped += 1
            return
        self._put += size
        self._lines.put(line)

    def end(self) -> None:
        """End the waiting of the other thread."""
        self._ends = 1
        self._lines.put(None)

    def wait(self) -> bytes | None:
        """Wait for the next line; ``None``: there is no more."""
        return self._took(self._lines.get())

    def take(self) -> bytes | None:
        """Give the next line; ``None``: none waits, or there is no more."""
        try:
            return self._took(self._lines.get_nowait())
        except Empty:
            return None

    def _took(self, line: bytes | None) -> bytes | None:
        if line is None:
            self._ends = 0
        else:
            self._taken += len(line)
        return line

    def __len__(self) -> int:
        return self._lines.qsize() - self._ends
