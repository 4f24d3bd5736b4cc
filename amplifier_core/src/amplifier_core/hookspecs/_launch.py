"""A process to start on this host: what a transport wants, and what an isolation makes of it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import subprocess


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start on this host."""

    command: tuple[str, ...]
    """The program, an absolute path or a name on the ``PATH`` of ``env``, and its arguments."""
    cwd: str
    """The working directory, an absolute path."""
    env: Mapping[str, str]
    """The whole environment: the process inherits no variable."""
    fds: tuple[int, ...] = ()
    """File descriptors that the process inherits."""
    limits: Mapping[int, int] = {}
    """Its resource limits, by the numbers of the module ``resource``."""
    gate: int | None = None
    """A connected socket. The process does nothing before it has read the other end, one of ``fds``, to its end."""
    word: bytes = b""
    """What is sent through the gate when the limits are set. Without it the process must end by itself, not go on: then
    its kernel was killed."""
    generations: int = 0
    """How many generations below the started process the program runs that an isolation starts: a sandbox may tell of
    its end by signal as of an exit code."""
    shown: Mapping[str, Any] = {}
    """What an isolation opens to the module, as JSON for people. It is in the log."""
    end: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    """Ends what an isolation has for this process outside of it, such as a container, and gives what there is to tell
    of it, as JSON for people.

    The transport awaits it when the process has ended, and adds what it gives to ``module:exit``. The kernel calls it
    for each launch of a module that has been closed, started or not, unless the transport did. It never raises there.
    """

    def start(self, **options: Any) -> subprocess.Popen[Any]:
        """Start the process, once. ``options`` of ``subprocess.Popen`` replace the launch's own.

        It starts with no signal blocked or ignored, whatever this program does with its own.

        Raises ``OSError``; then no process runs.
        """
        import subprocess  # 5 ms, and not every program starts a process

        try:
            own = {"args": self.command, "cwd": self.cwd, "env": dict(self.env), "pass_fds": self.fds}
            process = subprocess.Popen(**own | _default_signals() | options)
            try:
                self._limit(process.pid)
                self._open_gate()
            except OSError:
                with process:
                    process.kill()
                raise
        finally:
            self.close()
        return process

    def close(self) -> None:
        """Close the descriptors of the launch. ``start`` does so. Call it if the process is not started."""
        for fd in (*self.fds, *(() if self.gate is None else (self.gate,))):
            os.close(fd)

    def _open_gate(self) -> None:
        if self.gate is not None:
            import socket

            gate = socket.socket(fileno=self.gate)
            gate.sendall(self.word)
            gate.shutdown(socket.SHUT_WR)  # the end, even if a process that was forked meanwhile holds this socket too
            gate.detach()

    def _limit(self, pid: int) -> None:
        if self.limits:
            from resource import prlimit  # Linux alone has it, and the limits

            for number, value in self.limits.items():
                prlimit(pid, number, (value, value))


def _default_signals() -> dict[str, Any]:
    """Give the option of ``Popen`` that undoes what a process would inherit: blocked signals, and ignored ones.

    There is nothing to undo in most programs. With ``preexec_fn``, ``Popen`` forks in the slow way.
    """
    if os.name != "posix":
        return {}
    import signal

    undone = {signal.SIGPIPE, signal.SIGXFSZ}  # `Popen` undoes these
    ignored = [number for number in signal.valid_signals() - undone if signal.getsignal(number) == signal.SIG_IGN]
    if not ignored and not signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return {}

    def undo() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return {"preexec_fn": undo}
