"""Pipes that threads read and write: the way that works on every system and with every event loop.

Owns three threads, and the descriptors that they read, write and close. A thread that waits for a pipe cannot be
interrupted: if a process that escaped still holds the other end, the thread ends with that process.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from ._loop_pipes import FULL, READ, STDERR_PAUSE
from ._worker_thread import WorkerThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._process import ByteReader
    from ._process_tree import ProcessTree

_LINGER = 0.25  # seconds without a byte after which pipes that another process holds are left
_ROUNDS = 8  # of that length at most, if the other process goes on writing
_EXIT_GRACE = 0.05  # seconds that a process which does not read its input has to exit by itself


class ThreadPipes:
    """The pipes of a process, each with a thread of its own.

    ``on_stderr`` gets its stderr; ``on_broken`` is called if its stdin has no reader. ``write`` returns before the line
    is written: it raises ``BrokenPipeError`` only if an earlier write has failed, or the process has ended.
    """

    def __init__(
        self, tree: ProcessTree, reader: ByteReader, on_stderr: Callable[[bytes], None], on_broken: Callable[[], None]
    ) -> None:
        popen = tree.popen
        self._loop = asyncio.get_running_loop()
        self._tree = tree
        self._reader = reader
        self._on_broken = on_broken
        self._refused = False
        self._stdin = _PipeWriter(f"stdin {popen.pid}", popen.stdin, self._on_refused)
        self._stdout = _PipeReader(f"stdout {popen.pid}", popen.stdout, self._on_stdout)
        self._stderr = _PipeReader(f"stderr {popen.pid}", popen.stderr, on_stderr, pause=STDERR_PAUSE)
        self._threads = (self._stdin, self._stdout, self._stderr)
        self.pause = self._stdout.pause
        self.resume = self._stdout.resume

    def write(self, line: bytes, *, now: bool) -> None:
        """Send a line, joined with the other lines that wait to be sent."""
        if now and not self._stdin.closed and (self._refused or self._tree.has_ended()):
            raise BrokenPipeError
        self._stdin.lines.put(line)

    @property
    def unsent(self) -> bool:
        """Whether lines wait to be sent: the module has not read what was sent before."""
        return not self._stdin.lines.empty()

    @property
    def unread(self) -> int:
        """The bytes that the module has not read: here it can't be told."""
        return 0

    def close_stdin(self) -> None:
        """End the module's input."""
        self._stdin.close()

    async def finish(self) -> None:
        """Read the rest, and join the threads. Threads that another process keeps from ending are left running."""
        self.close_stdin()
        self.resume()
        rounds, count = 0, -1
        while rounds < _ROUNDS and count != (count := self._stdout.count + self._stderr.count):
            rounds += 1
            await asyncio.wait([thread.done for thread in self._threads], timeout=_LINGER)
        for thread in self._threads:
            thread.release()

    def _on_stdout(self, data: bytes) -> None:
        if data:
            self._reader.received(data)
        else:
            self._reader.closed_stdout()

    def _on_refused(self) -> None:
        self._refused = True
        self._loop.call_later(_EXIT_GRACE, self._on_broken)


class _PipeReader(WorkerThread):
    """Reads one pipe to its end. It reads on only when the loop has taken the last piece, and after a ``pause``."""

    def __init__(self, name: str, stream: Any, take: Callable[[bytes], None], pause: float = 0) -> None:
        self.count = 0
        """Pieces that the loop has taken."""
        self._stream = stream
        self._take = take
        self._pause = pause
        self._taken = threading.Semaphore(0)
        self._paused = False
        self._released = False
        self._held: bytes | None = None
        super().__init__(name, self._work)

    def pause(self) -> None:
        """Leave what comes in the pipe until ``resume``, and hold the piece that has been read."""
        self._paused = True

    def resume(self) -> None:
        """Deliver the held piece, in the next turn of the loop, and read on."""
        self._paused = False
        if self._held is not None:
            data, self._held = self._held, None
            self._loop.call_soon(self._deliver, data)

    def release(self) -> None:
        """Join the thread if it is done; otherwise let it read on and drop what it reads."""
        self._released = True
        self._taken.release()
        super().release()

    def _work(self) -> None:
        with self._stream:
            while data := os.read(self._stream.fileno(), READ):
                if not self._released and self._post(self._deliver, data):
                    self._taken.acquire()
        self._post(self._deliver, b"")

    def _deliver(self, data: bytes) -> None:
        if self._paused:
            self._held = data
        elif not self._released:
            self.count += 1
            self._read_on(len(data))  # first: the thread reads while the loop goes on
            self._take(data)

    def _read_on(self, size: int) -> None:
        if size >= FULL and self._pause:
            self._loop.call_later(self._pause, self._taken.release)
        else:
            self._taken.release()


class _PipeWriter(WorkerThread):
    """Writes lines into one pipe; ``on_refused`` is called if it has no reader."""

    def __init__(self, name: str, stream: Any, on_refused: Callable[[], None]) -> None:
        self.closed = False
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stream = stream
        self._on_refused = on_refused
        super().__init__(name, self._work)

    def close(self) -> None:
        """Drop what is queued, and close the pipe after the write that is under way."""
        self.closed = True
        self.lines.put(b"")

    def _work(self) -> None:
        try:
            with self._stream:
                while not self.closed:
                    self._write(memoryview(self._next()))
        except OSError:  # BrokenPipeError; on Windows EINVAL, too
            self._post(self._on_refused)

    def _next(self) -> bytes:
        """Wait for a line, and join it with the others that are queued."""
        lines = [self.lines.get()]
        while not self.lines.empty():
            lines.append(self.lines.get())
        return b"".join(lines)

    def _write(self, rest: memoryview) -> None:
        while rest and not self.closed:
            rest = rest[os.write(self._stream.fileno(), rest[:READ]) :]
