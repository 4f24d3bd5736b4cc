"""The processes of a module on Windows, which has no process groups: a job object holds them.

Owns what Windows does otherwise in starting, awaiting, killing and measuring them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from ._process_tree import KILL, ProcessTree

assert sys.platform == "win32"  # noqa: S101 - for the type checker

from ._job_object import SUSPENDED, JobObject  # noqa: E402 - type checkers read no further on other systems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core.hookspecs import Launch

    from ._unreaped import Unreaped

_LAST, _PAUSE = 2.0, 0.005  # seconds that killed processes have to be gone, and between two looks


class JobTree(ProcessTree):
    """A root process with what it starts, in a job. Raises ``Unreachable`` if it cannot be started."""

    @staticmethod
    def describe() -> dict[str, str]:
        """Say how budgets are measured here, and which processes of a trusted module are killed at its end."""
        held = "held by a job object"
        return {"budgets": "measured with job objects", "trees": held, "orphans": held}

    def start(self, launch: Launch, env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
        """Start the root, which does nothing before it is in the job."""
        found = shutil.which(launch.command[0], path=env.get("PATH")) or launch.command[0]  # npx is npx.cmd
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | SUSPENDED
        self._job = JobObject()
        try:
            root = super().start(launch, env, args=(found, *launch.command[1:]), creationflags=flags, **options)
        except OSError:
            self._job.close()
            raise
        try:
            self._job.run(root.pid)
        except OSError:
            with root:
                root.kill()
            self._job.close()
            raise
        return root

    def watch(self) -> int | None:
        """Give nothing that a loop could watch: there is none."""
        return None

    def reap(self) -> None:
        """Note how the ended root ended, and give up the job."""
        self.exit_code = self.popen.wait()
        self._job.close()

    def wait(self) -> None:
        """Wait until the root has ended."""
        self.popen.wait()

    def has_ended(self) -> bool:
        """Tell whether the root has ended."""
        return self.popen.poll() is not None

    def send(self, number: int) -> None:
        """Kill the whole job, or send another signal to what shares a console with us. The root may have ended."""
        with contextlib.suppress(OSError):
            if number == KILL:
                self._job.kill()
            else:
                self.popen.send_signal(number)

    def kill_rest(self) -> None:
        """Kill what an ended root has left, and wait until it is gone. Call it in a thread."""
        self._job.kill()
        end = time.monotonic() + _LAST
        while self._job.active and time.monotonic() < end:
            time.sleep(_PAUSE)

    def measure(self, *, exact: bool, unreaped: Unreaped) -> tuple[float, int] | None:  # noqa: ARG002
        """Measure what is in the job; ``None`` if it is given up."""
        with contextlib.suppress(OSError):
            return self._job.measure()
        return None
