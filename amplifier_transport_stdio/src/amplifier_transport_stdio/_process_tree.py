"""The processes of a module: a root in a process group of its own, and all that it starts.

Owns how POSIX starts, awaits, kills and measures them: a process group is killed with one call. On Windows ``JobTree``
does, which derives from this.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import watch_forks, why_not_started

from ._exit_status import is_signal, open_pidfd, read_status
from ._orphan_search import can_search
from ._usage import children_of, measure_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Launch

    from ._unreaped import Unreaped

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process at once: on Windows ``Popen`` does that for SIGTERM."""

TERMINATE = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
"""Asks the whole tree to end: on Windows the processes that share a console with us."""


_HEAD = 256  # bytes of a program: as many as the system looks at
_WORDS = 3  # of a command, shown: an interpreter, an option and a script
_SHOWN = 200  # characters of each
_UNKNOWN = 255  # what `Popen` is told of an exit that nobody knows: that it was no success


class ProcessTree:
    """A root process with what it starts. Raises ``Unreachable`` if it cannot be started."""

    def __init__(self, launch: Launch, env: Mapping[str, str]) -> None:
        self.popen = self._started(launch, env)
        self.exit_code: int | None = None
        """How the ended root ended, as ``subprocess`` says it; ``None`` if nothing here can tell."""
        self._generations = launch.generations
        self._pidfd: int | None = None
        self._program: int | None = None  # a pidfd of what an isolation has started
        self._status: int | None = None  # of the root, as `wait` has seen it: somebody else may reap it before us
        watch_forks(self)

    @staticmethod
    def describe() -> dict[str, str]:
        """Say how budgets are measured here, and which processes of a trusted module are killed at its end."""
        measure = measure_here()
        return {
            "budgets": "measured with " + measure.__name__.removeprefix("by_")
            if measure
            else "not kept: there is no /proc, and psutil is not installed",
            "trees": "ended by process group",
            "orphans": "found by their mark" if can_search() else "not found: there is no /proc, or no pidfd",
        }

    def start(self, launch: Launch, env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
        """Start the root. Raises ``OSError``; then no process runs."""
        pipe = subprocess.PIPE
        return launch.start(env=env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, **options)

    def after_fork(self) -> None:
        """Close the child's copies of the pipes, or the root would see no end of its input. It is no child's child."""
        for stream in filter(None, (self.popen.stdin, self.popen.stdout, self.popen.stderr)):
            stream.close()
        self._close_pidfds()
        if self.popen.returncode is None:
            self.popen.returncode = _UNKNOWN

    def watch(self) -> int | None:
        """Open a pidfd of the root, which becomes readable at its end; ``None`` where there is none.

        ``reap`` closes it.
        """
        self._pidfd = open_pidfd(self.popen.pid)
        return self._pidfd

    def find_program(self) -> bool:
        """Look for the program that an isolation starts below the root; ``False`` if it may come yet.

        A sandbox tells of a signal that ended its program as a shell does, by an exit code that the program can have by
        itself.
        """
        found = [self.popen.pid]
        for _ in range(self._generations if self.popen.returncode is None else 0):
            found = children_of(found[0])[:1]
            if not found:
                return False
        if found[0] != self.popen.pid:
            self._program = open_pidfd(found[0])
        return True

    def reap(self) -> None:
        """Reap the ended root. What else runs in this program may have done so, and Linux if SIGCHLD is ignored."""
        try:
            status: int | None = os.waitpid(self.popen.pid, 0)[1]
        except ChildProcessError:
            status = read_status(self._pidfd) if self._status is None else self._status
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if code is not None and is_signal(ended := read_status(self._program), code):
            code = os.waitstatus_to_exitcode(ended or 0)
        self.exit_code = code
        self.popen.returncode = _UNKNOWN if code is None else code
        self._close_pidfds()

    def _close_pidfds(self) -> None:
        for pidfd in (self._pidfd, self._program):
            if pidfd is not None:
                os.close(pidfd)
        self._pidfd = self._program = None

    def wait(self) -> None:
        """Wait until the root has ended, if possible without reaping it: until then no other process gets its pid."""
        if not hasattr(os, "waitid"):
            self.popen.wait()
            return
        pidfd = open_pidfd(self.popen.pid)
        try:
            ended = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)
            if ended is not None:  # pragma: no branch - it has waited
                self._status = ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
        except ChildProcessError:  # somebody else has reaped it
            self._status = read_status(pidfd)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def has_ended(self) -> bool:
        """Tell whether the root has ended, if possible without reaping it."""
        if self.popen.returncode is not None:
            return True
        if hasattr(os, "waitid"):
            try:
                return os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
            except ChildProcessError:
                return True
        return self.popen.poll() is not None

    def send(self, number: int) -> None:
        """Send a signal to the root's group. It may have ended."""
        with contextlib.suppress(OSError):  # PermissionError: only zombies are left (macOS)
            os.killpg(self.popen.pid, number)

    def kill_rest(self) -> None:
        """Kill what an ended root has left."""
        self.send(KILL)

    def measure(self, *, exact: bool, unreaped: Unreaped) -> tuple[float, int] | None:
        """Measure the root with its descendants: milliseconds of CPU time, bytes; ``None`` if there is no way to do so.

        ``unreaped`` has the samples before this one. Raises ``Oom`` if there are too many processes.
        """
        measure = measure_here()
        return None if measure is None else measure(self.popen.pid, exact=exact, unreaped=None if exact else unreaped)

    def _started(self, launch: Launch, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return self.start(launch, env)
        except OSError as error:
            if not Path(launch.cwd).is_dir():
                why = f"folder {launch.cwd}: {error.strerror}{_tilde(launch.cwd)}"
            else:
                why = f"command {launch.command[0]}: {_reason(launch.command[0], launch.cwd, env, error)}"
            raise Unreachable(why, details={"command": shown_command(launch.command)}) from error


def _reason(command: str, cwd: str, env: Mapping[str, str], error: OSError) -> str:
    """Say why a program did not start. The system says of a script what is true of its interpreter."""
    found = shutil.which(command, path=env.get("PATH")) if Path(command).name == command else command
    program = Path(cwd, found or command)
    if not program.is_file() or not os.access(program, os.R_OK):
        return f"{error.strerror}{_tilde(command)}"
    if not os.access(program, os.X_OK):
        return f"{error.strerror}: the file is not executable; make it so, or put its interpreter before it"
    with program.open("rb") as file:
        fault = why_not_started(file.read(_HEAD), lambda name: os.access(Path(cwd, name), os.X_OK))
    return fault or str(error.strerror)


def _tilde(path: str) -> str:
    return "; ~ stands for no home here: write the path out" if "~" in Path(path).parts else ""


def shown_command(command: Sequence[str]) -> list[str]:
    """Give the beginning of a command, for an error that others get to see: options may have secrets."""
    plain = list(takewhile(lambda word: not word.startswith("--"), command))[:_WORDS]
    shown = [word if len(word) <= _SHOWN else f"{word[:_SHOWN]}…" for word in plain]
    return shown if len(plain) == len(command) else [*shown, "…"]
