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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable

from ._usage import psutil_here

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amplifier_core.hookspecs import Launch

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process at once: on Windows ``Popen`` does that for SIGTERM."""

TERMINATE = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
"""Asks the whole tree to end: on Windows the processes that share a console with us."""


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
        what = f"command {launch.command[0]}" if Path(launch.cwd).is_dir() else f"folder {launch.cwd}"
        raise Unreachable(f"{what}: {error.strerror}", details={"command": list(launch.command)}) from error
