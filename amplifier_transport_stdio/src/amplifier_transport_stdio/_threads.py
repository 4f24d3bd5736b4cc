"""Pipes that threads read and write: the way that works on every system and with every event loop.

Owns three threads and the descriptors that they read and write, which nobody else closes. A thread cannot be called
back from a pipe: if a process that escaped its end still holds the other side, the thread ends with that process.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from ._pipes import READ
from ._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._pipes import Reader
    from ._tree import Tree

_LINGER = 0.25
"""Seconds without a byte after which pipes that somebody else holds are left, when the process has ended."""

_ROUNDS = 8
"""As many times as long is waited at most, if somebody else goes on writing."""

_EXIT_GRACE = 0.05
"""Seconds that a process has to end by itself, and tell its story, after it was found not to read its input."""


class ThreadedPipes:
    """The pipes of a process, each with a thread of its own that tells the loop.

    ``said`` is given what comes on stderr; ``broken`` is called if nobody reads stdin any more. A line is on its way
    when ``write`` returns: that nobody reads it is raised only if that was known before.
    """

    def __init__(self, tree: Tree, reader: Reader, said: Callable[[bytes], None], broken: Callable[[], None]) -> None:
        popen = tree.popen
        self._loop = asyncio.get_running_loop()
        self._tree = tree
        self._reader = reader
        self._broken = broken
        self._refused = False
        self._stdin = _Speaker(f"stdin {popen.pid}", popen.stdin, self._on_refused)
        self._stdout = _Listener(f"stdout {popen.pid}", popen.stdout, self._on_stdout)
        self._stderr = _Listener(f"stderr {popen.pid}", popen.stderr, said)
        self._threads = (self._stdin, self._stdout, self._stderr)
        for thread in self._threads:
            thread.start()

    def write(self, line: bytes, *, now: bool) -> None:
        """Send a line, joined with whatever else waits to be sent."""
        if now and not self._stdin.closed and (self._refused or self._tree.has_ended()):
            raise BrokenPipeError
        self._stdin.put(line)

    def pause(self) -> None:
        """Leave what the module writes in its pipe until ``resume``, but for what has been read already."""
        self._stdout.pause()

    def resume(self) -> None:
        """Read on."""
        self._stdout.resume()

    def close_stdin(self) -> None:
        """Have the module read the end of its input."""
        self._stdin.close()

    async def finish(self) -> None:
        """Hear the rest, and let the threads end; those that somebody else keeps from ending are left behind."""
        self.close_stdin()
        self._stdout.resume()
        rounds, heard = 0, -1
        while rounds < _ROUNDS and heard != (heard := self._stdout.heard + self._stderr.heard):
            rounds += 1
            await asyncio.wait([thread.done for thread in self._threads], timeout=_LINGER)
        for thread in self._threads:
            thread.leave()

    def _on_stdout(self, data: bytes) -> None:
        if data:
            self._reader.received(data)
        else:
            self._reader.closed_stdout()

    def _on_refused(self) -> None:
        self._refused = True
        self._loop.call_later(_EXIT_GRACE, self._broken)


class _Listener(Worker):
    """Reads one pipe to its end, and reads on only when the loop has taken what was read."""

    def __init__(self, name: str, stream: Any, take: Callable[[bytes], None]) -> None:
        super().__init__(name)
        self.heard = 0
        self._stream = stream
        self._take = take
        self._taken = threading.Semaphore(0)
        self._paused = False
        self._left = False
        self._held: bytes | None = None

    def pause(self) -> None:
        """Hold what has been read until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Take what was held, in the next turn of the loop, and read on."""
        self._paused = False
        if self._held is not None:
            data, self._held = self._held, None
            self._loop.call_soon(self._hear, data)

    def leave(self) -> None:
        """Tell nobody any more of what is read."""
        self._left = True
        self._taken.release()
        super().leave()

    def _work(self) -> None:
        with self._stream:
            while data := os.read(self._stream.fileno(), READ):
                if not self._left and self._post(self._hear, data):
                    self._taken.acquire()
        self._post(self._hear, b"")

    def _hear(self, data: bytes) -> None:
        if self._paused:
            self._held = data
        elif not self._left:
            self.heard += 1
            self._taken.release()  # first: the next read goes on beside what follows
            self._take(data)


class _Speaker(Worker):
    """Writes lines into one pipe; ``refused`` is called if nobody reads them any more."""

    def __init__(self, name: str, stream: Any, refused: Callable[[], None]) -> None:
        super().__init__(name)
        self.closed = False
        self._stream = stream
        self._refused = refused
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def put(self, line: bytes) -> None:
        """Have a line written."""
        self._lines.put(line)

    def close(self) -> None:
        """Write no more, and close the pipe when what is being written is."""
        self.closed = True
        self._lines.put(b"")

    def _work(self) -> None:
        try:
            with self._stream:
                while not self.closed:
                    self._write(memoryview(self._next()))
        except OSError:  # BrokenPipeError; on Windows EINVAL, too
            self._post(self._refused)

    def _next(self) -> bytes:
        """Wait for a line, and take with it what else has come."""
        lines = [self._lines.get()]
        while not self._lines.empty():
            lines.append(self._lines.get())
        return b"".join(lines)

    def _write(self, rest: memoryview) -> None:
        while rest and not self.closed:
            rest = rest[os.write(self._stream.fileno(), rest[:READ]) :]
