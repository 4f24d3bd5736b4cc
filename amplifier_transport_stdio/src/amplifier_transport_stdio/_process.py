"""One operating system process: its start, and its end together with all that it started.

Owns signals, the exit and the tail of stderr. It chooses how the pipes are read and written, and knows bytes alone.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, Protocol

from ._line_stream import Write  # noqa: TC001 - help() reads the type of `write`
from ._loop_pipes import LoopPipes
from ._process_tree import KILL, TERMINATE, ProcessTree
from ._thread_pipes import ThreadPipes
from ._worker_thread import WorkerThread

if sys.platform == "win32":  # pragma: no cover
    from ._job_tree import JobTree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core.hookspecs import Launch

    from ._orphans import OrphanKiller
    from ._unreaped import Unreaped

_TAIL = 8 * 1024  # bytes of stderr kept for the details of an error
_END_OF_INPUT_GRACE = 1.0
_TERMINATE_GRACE = 0.5
_PROGRAM_PAUSE = 0.004  # seconds after which the program of a sandbox is looked for, then twice as long each time
_PROGRAM_PAUSES_END = 8.0
_SIGNALS = {int(number): number.name for number in signal.Signals}


class ByteReader(Protocol):
    """What a process calls."""

    def received(self, data: bytes) -> None:
        """Take bytes from stdout."""

    def closed_stdout(self) -> None:
        """No more bytes follow, though the process may still run."""

    async def taken(self) -> None:
        """Wait until what was received has been taken."""

    def exited(self) -> None:
        """The process has ended, and everything that it wrote was received."""


def tree_here() -> type[ProcessTree]:
    """Give the class of process trees on this system."""
    if sys.platform == "win32":  # pragma: no cover
        return JobTree
    return ProcessTree


def can_watch_pipes(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop can watch pipes. On Windows no loop can: some watch sockets, the others nothing."""
    return sys.platform != "win32" and type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


class Process:
    """A running child process in a session, and so a process group, of its own.

    ``write(line, now=…)`` is that of its pipes. ``orphans`` kills what it leaves behind outside of that group; it is
    ``None`` for a confined process, which leaves nothing. Raises ``Unreachable`` if the process cannot be started.
    """

    def __init__(self, launch: Launch, reader: ByteReader, orphans: OrphanKiller | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._orphans = orphans
        self._end_isolation = launch.end
        self._told: Mapping[str, Any] = {}  # of that end
        env, self._mark = orphans.mark(dict(launch.env)) if orphans else (launch.env, "")
        self._tree = tree_here()(launch, env)
        self.pid: int = self._tree.popen.pid
        self._ending: asyncio.Task[None] | None = None
        self._tail = b""
        self.heard: int = 0
        """How many bytes of stderr have been read."""
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        watched = can_watch_pipes(self._loop)
        self._waiter = self._watch_exit() if watched else self._wait_in_thread()
        pipes: type[LoopPipes | ThreadPipes] = LoopPipes if watched else ThreadPipes
        self._pipes = pipes(self._tree, reader, self._on_stderr, self.kill)
        self.write: Write = self._pipes.write  # bound, for speed
        if launch.generations:
            self._look_for_program(_PROGRAM_PAUSE)

    @property
    def alive(self) -> bool:
        """Whether the process is not known to have ended."""
        return self._tree.popen.returncode is None

    @property
    def unsent(self) -> bool:
        """Whether lines wait to be sent: the process has not read what was sent before."""
        return self._pipes.unsent

    @property
    def unread(self) -> int:
        """The bytes that the process has not read, or had not when it ended; 0 if it can't be told."""
        return self._pipes.unread

    @property
    def gone(self) -> bool:
        """Whether nothing is left of the process, nor of what it started."""
        return self._gone.done()

    def kill(self) -> None:
        """Kill the process and its group; ``exited`` follows."""
        if self.alive:
            self._tree.send(KILL)

    def pause(self) -> None:
        """Leave its output in the pipe until ``resume``."""
        self._pipes.pause()

    def resume(self) -> None:
        """Read on."""
        self._pipes.resume()

    async def close(self) -> None:
        """End the process: end of input, then SIGTERM, then SIGKILL, each with its grace."""
        self._pipes.close_stdin()
        await asyncio.wait((self._ended,), timeout=_END_OF_INPUT_GRACE)
        if self.alive:
            self._tree.send(TERMINATE)
            await asyncio.wait((self._ended,), timeout=_TERMINATE_GRACE)
        self.kill()
        await asyncio.wait((self._gone,))

    def measure(self, *, exact: bool, unreaped: Unreaped) -> tuple[float, int] | None:
        """Measure the process with its descendants, in a thread: see ``ProcessTree``."""
        return self._tree.measure(exact=exact, unreaped=unreaped)

    def outcome(self) -> dict[str, Any]:
        """Say how the process ended, with the tail of its stderr: the ``details`` of an error."""
        code = self._tree.exit_code
        how: dict[str, Any] = {}
        if code is not None:
            how = {"exit_code": code} if code >= 0 else {"signal": _SIGNALS.get(-code, str(-code))}
        return {"pid": self.pid, **how, **self.stderr()}

    @property
    def told(self) -> Mapping[str, Any]:
        """What an isolation tells of the ended process, for ``module:exit``."""
        return self._told

    def stderr(self, since: int = 0) -> dict[str, str]:
        """Give the tail of stderr, if there is any, of what came after the first ``since`` bytes."""
        new = self._tail[-(self.heard - since) :] if self.heard > since else b""
        return {"stderr": new.decode(errors="replace")} if new else {}

    def _on_stderr(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]
        self.heard += len(data)

    def _look_for_program(self, pause: float) -> None:
        """Look again and again, less and less often, for the program that an isolation starts."""
        if not self._tree.find_program() and pause < _PROGRAM_PAUSES_END:
            self._loop.call_later(pause, self._look_for_program, pause * 2)

    def _watch_exit(self) -> WorkerThread | None:
        """Let the loop watch a pidfd for the exit. Where there is none, wait in a thread, and return that."""
        pidfd = self._tree.watch()
        if pidfd is None:
            return self._wait_in_thread()
        self._loop.add_reader(pidfd, self._on_pidfd, pidfd)
        return None

    def _wait_in_thread(self) -> WorkerThread:
        waiter = WorkerThread(f"wait {self.pid}", self._wait)
        waiter.done.add_done_callback(self._on_exit)
        return waiter

    def _wait(self) -> None:
        """Wait for the exit, and kill what is left of the tree while the pid is still its own."""
        self._tree.wait()
        self._tree.kill_rest()

    def _on_pidfd(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        self._tree.kill_rest()
        self._on_exit()

    def _on_exit(self, _: object = None) -> None:
        if self._waiter is not None:
            self._waiter.release()
        self._ending = self._loop.create_task(self._end(), name=f"end {self.pid}")

    async def _end(self) -> None:
        """Read the rest, reap the process, report its exit, and kill what has left its group."""
        try:
            await self._pipes.finish()
            self._tree.reap()
            self._ended.set_result(None)
            await self._reader.taken()
            if self._end_isolation is not None:
                self._told = await self._end_isolation()
            self._reader.exited()
            if self._orphans is not None and self._mark:
                await self._orphans.kill(self._mark)
        finally:
            self._gone.set_result(None)
