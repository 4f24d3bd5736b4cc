"""The processes of a module: a root in a process group of its own, and all that it starts.

Owns what differs between systems in starting, awaiting and killing them. POSIX kills a process group with one call.
Windows has no such groups: there psutil finds the descendants, and without psutil only the root is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import why_not_started

from ._usage import psutil_here

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amplifier_core.hookspecs import Launch

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process at once: on Windows ``Popen`` does that for SIGTERM."""

TERMINATE = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
"""Asks the whole tree to end: on Windows the processes that share a console with us."""


_HEAD = 256  # bytes of a program: as many as the system looks at
_WORDS = 3  # of a command, shown: an interpreter, an option and a script
_SHOWN = 200  # characters of each


class ProcessTree:
    """A root process with what it starts. Raises ``Unreachable`` if it cannot be started."""

    def __init__(self, launch: Launch, env: Mapping[str, str]) -> None:
        self._began = time.time()
        self.popen = _spawn(launch, env)

    def wait(self) -> None:
        """Wait until the root has ended, if possible without reaping it: until then no other process gets its pid."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)
        else:
            self.popen.wait()

    def has_ended(self) -> bool:
        """Tell whether the root has ended, if possible without reaping it."""
        if self.popen.returncode is not None:
            return True
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        return self.popen.poll() is not None

    def send(self, number: int) -> None:
        """Send a signal to the root's group, or to the root where there are no groups. It may have ended."""
        with contextlib.suppress(OSError):  # PermissionError: only zombies are left (macOS)
            if hasattr(os, "killpg"):
                os.killpg(self.popen.pid, number)
            else:
                self.popen.send_signal(number)

    def kill_rest(self) -> None:
        """Kill what an ended root has left. Without groups this looks at every process: call it in a thread."""
        if hasattr(os, "killpg"):
            self.send(KILL)
            return
        psutil = psutil_here()
        for each in descendants(self.popen.pid, self._began) if psutil else ():
            with contextlib.suppress(psutil.Error):
                each.kill()


def describe_kill() -> str:
    """Say which processes of a tree are killed on this host."""
    if hasattr(os, "killpg"):
        return "ended by process group"
    return "ended by descent, with psutil" if psutil_here() else "not ended but for the root: psutil is not installed"


def descendants(root: int, began: float) -> Iterator[Any]:
    """Find the descendants of a process that was started at ``began``, and may have ended.

    Windows keeps the pid of an ended parent, and reuses it: no child is older than its parent.
    """
    children = defaultdict(list)
    for each in psutil_here().process_iter(["ppid", "create_time"]):
        children[each.info["ppid"]].append(each)
    ahead = [(root, began)]
    while ahead:
        parent, born = ahead.pop()
        for child in children.pop(parent, ()):
            if (child.info["create_time"] or 0) >= born:
                ahead.append((child.pid, child.info["create_time"]))
                yield child


def _spawn(launch: Launch, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    found = shutil.which(launch.command[0], path=env.get("PATH")) if sys.platform == "win32" else None  # npx is npx.cmd
    try:
        return launch.start(
            args=(found or launch.command[0], *launch.command[1:]),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Windows does not know this
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
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
    if not program.is_file():
        return f"{error.strerror}{_tilde(command)}"
    if not os.access(program, os.X_OK):
        return f"{error.strerror}: the file is not executable; make it so, or put its interpreter before it"
    with contextlib.suppress(OSError), program.open("rb") as file:
        fault = why_not_started(file.read(_HEAD), lambda name: os.access(Path(cwd, name), os.X_OK))
        return fault or error.strerror or str(error)
    return error.strerror or str(error)


def _tilde(path: str) -> str:
    return "; ~ stands for no home here: write the path out" if "~" in Path(path).parts else ""


def shown_command(command: Sequence[str]) -> list[str]:
    """Give the beginning of a command, for an error that others get to see: options may have secrets."""
    plain = list(takewhile(lambda word: not word.startswith("--"), command))[:_WORDS]
    shown = [word if len(word) <= _SHOWN else f"{word[:_SHOWN]}…" for word in plain]
    return shown if len(plain) == len(command) else [*shown, "…"]
