"""Pipes that the event loop reads and writes in callbacks: the fast way, where the loop can watch pipes.

Owns three descriptors that do not block. It neither starts nor ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import watch_forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._process import ByteReader
    from ._process_tree import ProcessTree

READ = 96 * 1024
"""Bytes read at a time: 64 KiB of arguments come back in one read. 128 KiB cross malloc's mmap threshold (9 µs)."""

FULL = 64 * 1024
"""Bytes that a pipe holds unless it was widened: with so many in it, its writer is faster than its reader."""

STDERR_PAUSE = 0.002
"""Seconds for which stderr is left alone after it was full: nobody waits for it."""

_WIDE = 1024 * 1024  # bytes that Linux allows every user
_LOOKS = 64  # at stderr, each with an answer, until they find nothing
_LAST_READS = 64  # more than any pipe holds, and an end if another process goes on writing
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


class LoopPipes:
    """The pipes of a process. ``on_stderr`` gets its stderr; ``on_broken`` is called if its stdin has no reader."""

    def __init__(
        self, tree: ProcessTree, reader: ByteReader, on_stderr: Callable[[bytes], None], on_broken: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._popen = popen = tree.popen
        self._reader = reader
        self._take_stderr = on_stderr
        self._on_broken = on_broken
        self._stdin, self._stdout, self._stderr = (
            stream.fileno() for stream in (popen.stdin, popen.stdout, popen.stderr) if stream
        )
        self._out: list[bytes | memoryview] = []
        self._flushing = False
        self._unread = 0
        self._paused = False
        self._finishing = False
        self._pause: asyncio.TimerHandle | None = None  # of stderr
        self._wide = False
        self._looks = _LOOKS
        for fd in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._stdout, self._on_stdout)
        self._loop.add_reader(self._stderr, self._on_stderr)
        watch_forks(self)

    def after_fork(self) -> None:
        """Send nothing more in the child, whose copies of the pipes are closed: their numbers may be others' now."""
        self._out.clear()
        self._flushing = True

    def write(self, line: bytes, *, now: bool) -> None:
        """Send a line: at once, or joined with the other lines of this turn of the loop.

        Raises ``BrokenPipeError`` if it is sent at once and the other end is closed.
        """
        if self._flushing:
            self._out.append(line)
        elif now:
            sent = self._send(line)
            if sent < len(line):
                if not self._wide:
                    self._widen()
                    sent += self._send(memoryview(line)[sent:])
                self._keep_rest(line, sent)
        else:
            self._out.append(line)
            self._flushing = True
            self._loop.call_soon(self._flush)

    @property
    def unsent(self) -> bool:
        """Whether lines wait to be sent: the module has not read what was sent before."""
        return bool(self._out)

    @property
    def unread(self) -> int:
        """The bytes that the module has not read, or had not when its input ended; 0 if it can't be told."""
        return _waiting(self._stdin) if self._popen.stdin and not self._popen.stdin.closed else self._unread

    def pause(self) -> None:
        """Leave the module's output in its pipe until ``resume``."""
        self._paused = True
        if not self._finishing:
            self._loop.remove_reader(self._stdout)

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self._finishing:
            self._paused = False
            self._loop.add_reader(self._stdout, self._on_stdout)

    def close_stdin(self) -> None:
        """End the module's input; lines that were not sent yet are dropped. Idempotent."""
        if self._popen.stdin and not self._popen.stdin.closed:
            self._unread = _waiting(self._stdin)
            self._loop.remove_writer(self._stdin)
            self._out.clear()
            self._flushing = True  # lines that are still sent are dropped
            self._popen.stdin.close()

    async def finish(self) -> None:
        """Read what an ended process left in its pipes, and close them."""
        self._finishing = True
        self._loop.remove_reader(self._stdout)
        for data in takewhile(bool, (_read(self._stdout) for _ in range(_LAST_READS))):
            self._reader.received(data)
            await self._reader.taken()
        if self._pause is not None:
            self._pause.cancel()
        self._take_stderr(_rest(self._stderr))
        self.close_stdin()
        for stream in filter(None, (self._popen.stdout, self._popen.stderr)):
            self._loop.remove_reader(stream)
            stream.close()

    def _on_stdout(self) -> None:
        data = os.read(self._stdout, READ)
        if self._looks:
            self._look_at_stderr()
        if data:
            self._reader.received(data)
            if len(data) >= FULL and not self._paused and not data.endswith(b"\n"):
                self._reader.received(_read(self._stdout))  # the rest of a line that the read has cut
        else:
            self._loop.remove_reader(self._stdout)
            self._reader.closed_stdout()

    def _look_at_stderr(self) -> None:
        """Take what stderr had before an answer: it would be held against the request that is sent next.

        The loop tells of both in any order. Looking costs a microsecond, so it ends for a module that writes nothing.
        """
        self._looks -= 1
        if data := _read(self._stderr):
            self._take_stderr(data)
            self._looks = _LOOKS if len(data) < FULL else 0

    def _on_stderr(self) -> None:
        try:
            data = os.read(self._stderr, READ)
        except BlockingIOError:  # it was taken before the answer that came with it
            return
        self._take_stderr(data)
        self._looks = _LOOKS if 0 < len(data) < FULL else 0
        if not 0 < len(data) < FULL:
            self._loop.remove_reader(self._stderr)
        if len(data) >= FULL:
            self._pause = self._loop.call_later(STDERR_PAUSE, self._loop.add_reader, self._stderr, self._on_stderr)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0

    def _flush(self) -> None:
        if not self._out:  # stdin was closed meanwhile
            return
        self._flushing = False
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            self._keep_rest(data, self._send(data))
        except BrokenPipeError:  # the module closed its stdin, or ended
            self._on_broken()

    def _widen(self) -> None:
        """Let the pipes hold more, if possible. Only for a message that does not fit: a user's pipes have a quota."""
        self._wide = True
        with contextlib.suppress(OSError, AttributeError):
            for fd in (self._stdin, self._stdout):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)

    def _keep_rest(self, data: bytes | memoryview, sent: int) -> None:
        """Keep what was not sent until the pipe has room."""
        if sent < len(data):
            self._out.append(memoryview(data)[sent:])
            self._flushing = True
            self._loop.add_writer(self._stdin, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._stdin)
        self._flush()


def _rest(fd: int) -> bytes:
    """Read what an ended writer has left in a pipe."""
    return b"".join(takewhile(bool, (_read(fd) for _ in range(_LAST_READS))))


def _waiting(fd: int) -> int:
    """Count the bytes that wait in a pipe, where the system tells it of the end that is written to: Linux does."""
    import termios  # noqa: PLC0415 - few transports ask

    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, READ)
    except BlockingIOError:  # another process still has the other end
        return b""
