"""One child process: its start, its three pipes on the event loop, and its end with all that it started.

Owns descriptors and signals. It knows nothing of the protocol: lines go out as bytes, and come in through ``Reader``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import threading
from collections import deque
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core.hookspecs import Launch

    from ._orphans import Orphans

_READ = 64 * 1024  # a larger buffer crosses malloc's mmap threshold and costs 9 µs a read
_WIDE = 1024 * 1024  # what Linux lets any user have
_TAIL = 8 * 1024  # bytes of stderr kept for the details of an error
_END_OF_INPUT_GRACE = 1.0
_TERMINATE_GRACE = 0.5
_LAST_READS = (
    64  # of a pipe whose writer is dead: more than any pipe holds, and an end if somebody else goes on writing
)
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_SIGNALS = {int(number): number.name for number in signal.Signals}


class Reader(Protocol):
    """What a process tells its owner."""

    def received(self, data: bytes) -> None:
        """Bytes came on stdout."""

    def closed_stdout(self) -> None:
        """No more will come, though the process may live."""

    def exited(self) -> None:
        """The process is gone; everything that it wrote was received before."""


class Process:
    """A running child process in a session, and so a process group, of its own.

    ``orphans`` ends what it leaves behind outside of that group; ``None`` for what is confined and leaves nothing.
    Raises ``Unreachable`` if it cannot be started.
    """

    def __init__(self, launch: Launch, reader: Reader, orphans: Orphans | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._orphans = orphans
        env, self._mark = orphans.marked(dict(launch.env)) if orphans else (launch.env, "")
        self._popen = _spawn(launch, env)
        self._cleaning: asyncio.Task[None] | None = None
        self.pid = self._popen.pid
        self._stdin, self._stdout, self._stderr = (
            stream.fileno() for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr) if stream
        )
        self._out: deque[bytes | memoryview] = deque()
        self._flushing = False
        self._paused = False
        self._wide = False
        self._tail = b""
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = self._watch()
        for fd in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._stdout, self._on_stdout)
        self._loop.add_reader(self._stderr, self._on_stderr)

    @property
    def alive(self) -> bool:
        """Whether the process is not known to have ended."""
        return self._popen.returncode is None

    @property
    def gone(self) -> bool:
        """Whether nothing is left of it, nor of what it started."""
        return self._gone.done()

    def write(self, line: bytes, *, now: bool) -> None:
        """Send a line: at once, or joined with whatever else is sent in this tick of the loop.

        Raises ``BrokenPipeError`` if it is sent at once and nobody is there to read it.
        """
        if self._flushing:
            self._out.append(line)
        elif now:
            sent = self._send(line)
            if sent < len(line) and not self._wide:
                self._widen()
                sent += self._send(memoryview(line)[sent:])
            if sent < len(line):
                self._out.append(memoryview(line)[sent:])
                self._wait_writable()
        else:
            self._out.append(line)
            self._flushing = True
            self._loop.call_soon(self._flush)

    def pause(self) -> None:
        """Leave what the module writes in its pipe until ``resume``."""
        self._paused = True
        self._loop.remove_reader(self._stdout)

    def resume(self) -> None:
        """Read on."""
        if self._paused and self.alive:
            self._paused = False
            self._loop.add_reader(self._stdout, self._on_stdout)

    def kill(self) -> None:
        """Kill the process and its group; ``exited`` follows."""
        if self.alive:
            _signal_group(self.pid, _KILL)

    async def close(self) -> None:
        """End the process: end of input, then SIGTERM, then SIGKILL, each with its grace."""
        self._close_stdin()
        for grace, number in ((_END_OF_INPUT_GRACE, signal.SIGTERM), (_TERMINATE_GRACE, None)):
            await asyncio.wait((self._ended,), timeout=grace)
            if not self.alive:
                break
            if number is not None:
                _signal_group(self.pid, number)
        self.kill()
        await asyncio.wait((self._gone,))

    def outcome(self) -> dict[str, Any]:
        """Say how the process ended, with the tail of its stderr: the ``details`` of an error."""
        code = self._popen.returncode
        how = {"exit_code": code} if code >= 0 else {"signal": _SIGNALS.get(-code, str(-code))}
        return {"pid": self.pid, **how, **self.said()}

    def said(self) -> dict[str, str]:
        """Give the tail of stderr, if there is any."""
        return {"stderr": self._tail.decode(errors="replace")} if self._tail else {}

    def _watch(self) -> int:
        """Have ``_on_exit`` called when the process ends: a pidfd where there is one, else a thread that waits."""
        with contextlib.suppress(AttributeError, OSError):  # not on this system, or not allowed here
            pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(pidfd, self._on_exit)
            return pidfd
        threading.Thread(target=self._wait, name=f"wait {self.pid}", daemon=True).start()
        return -1

    def _wait(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # `_on_exit` reaps: until then the pid is ours
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._on_exit)

    def _on_stdout(self) -> None:
        data = os.read(self._stdout, _READ)
        if data:
            self._reader.received(data)
            if len(data) == _READ and not self._paused and (more := _read(self._stdout)):  # of a line cut by the read
                self._reader.received(more)
        else:
            self._loop.remove_reader(self._stdout)
            self._reader.closed_stdout()

    def _on_stderr(self) -> None:
        data = os.read(self._stderr, _READ)
        self._tail = (self._tail + data)[-_TAIL:]
        if not data:
            self._loop.remove_reader(self._stderr)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0

    def _flush(self) -> None:
        self._flushing = False
        out = self._out
        if len(out) > 1:
            joined = b"".join(out)
            out.clear()
            out.append(joined)
        try:
            while out:
                sent = self._send(out[0])
                if sent < len(out[0]):
                    out[0] = memoryview(out[0])[sent:]
                    self._wait_writable()
                    return
                out.popleft()
        except BrokenPipeError:  # the module closed its stdin, or ended; if it lives on, it is of no use any more
            out.clear()
            self.kill()

    def _widen(self) -> None:
        """Let the pipes hold more, where that can be: only when a message does not fit, since pipes have a quota."""
        self._wide = True
        with contextlib.suppress(OSError, AttributeError):
            for fd in (self._stdin, self._stdout):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)

    def _wait_writable(self) -> None:
        self._flushing = True
        self._loop.add_writer(self._stdin, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._stdin)
        self._flush()

    def _close_stdin(self) -> None:
        if self._popen.stdin and not self._popen.stdin.closed:
            self._loop.remove_writer(self._stdin)
            self._out.clear()
            self._flushing = True  # whatever is still sent goes nowhere
            self._popen.stdin.close()

    def _on_exit(self) -> None:
        """End what is left of the group while the pid is still ours, hear the rest, then reap and report."""
        _signal_group(self.pid, _KILL)
        self._reader.received(_rest(self._stdout))
        self._tail = (self._tail + _rest(self._stderr))[-_TAIL:]
        for fd in (self._stdout, self._stderr):
            self._loop.remove_reader(fd)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._close_stdin()
        with self._popen:  # closes the pipes and reaps
            self._ended.set_result(None)
        self._cleaning = self._loop.create_task(self._clean(), name=f"clean {self.pid}")
        self._reader.exited()

    async def _clean(self) -> None:
        try:
            if self._orphans is not None and self._mark:
                await self._orphans.end(self._mark)
        finally:
            self._gone.set_result(None)


def _spawn(launch: Launch, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - running the embedder's command is the purpose
            launch.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=launch.cwd,
            env=env,
            start_new_session=True,
            pass_fds=launch.fds,
        )
    except OSError as error:
        what = f"command {launch.command[0]}" if Path(launch.cwd).is_dir() else f"folder {launch.cwd}"
        raise Unreachable(f"{what}: {error.strerror}", details={"command": list(launch.command)}) from error
    finally:
        for fd in launch.fds:
            os.close(fd)


def _rest(fd: int) -> bytes:
    """Read what a dead writer has left in a pipe."""
    return b"".join(takewhile(bool, (_read(fd) for _ in range(_LAST_READS))))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ)
    except BlockingIOError:  # somebody else still has the other end
        return b""


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: only zombies are left (macOS)
        os.killpg(pid, number)
