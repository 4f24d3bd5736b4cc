"""One child process whose output is lines: from its start to its exit.

Owns the process and the account of its end. Its lines are cut and taken by ``LineStream``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable

from ._line_stream import LineStream
from ._process import Process
from ._process_tree import shown_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Launch, Notify

    from ._line_stream import LineReader
    from ._orphans import OrphanKiller

_EXIT_GRACE = 0.05  # seconds


class ChildProcess(LineStream, Process):
    """A process whose stdout ``lines`` takes. It emits ``module:noise`` and ``module:exit``."""

    def __init__(
        self,
        launch: Launch,
        lines: LineReader,
        limit: int,
        notify: Notify,
        orphans: OrphanKiller | None,
        command: Sequence[str] = (),
    ) -> None:
        LineStream.__init__(self, lines, limit)
        self._notify = notify
        self._command = shown_command(command or launch.command)
        Process.__init__(self, launch, self, orphans)

    @property
    def alive(self) -> bool:
        """Whether the process is not known to have ended."""
        return self._tree.popen.returncode is None

    def end(self) -> None:
        """Kill the process with all that it started."""
        Process.kill(self)

    def read_on(self, *, on: bool) -> None:
        """Read the pipe of its output, or leave it as it is."""
        (Process.resume if on else Process.pause)(self)

    async def close(self) -> None:
        """End the process, and wait until it is gone; requests in flight fail."""
        self._stop(Unreachable("the module was unmounted"))
        await super().close()

    def clues(self, since: int = 0) -> dict[str, Any]:
        """Give what may explain a missing answer: output that was no protocol, and the tail of stderr since then."""
        return {"command": self._command, **super().clues(since), **self.stderr(since)}

    def explain(self, details: Mapping[str, Any], since: int, in_flight: int = 1) -> dict[str, Any]:
        """Give the details of an error to a request in flight: what stderr had said before it is told apart."""
        found = super().explain(details, since, in_flight) | self.stderr(since)
        if "stderr" in details and not self.stderr(since):
            found["earlier_stderr"] = found.pop("stderr")
        return found

    # What the process calls.

    def closed_stdout(self) -> None:
        """Wait for the exit, which nearly always follows at once and tells more; then kill."""
        self._stop(None)
        self._loop.call_later(_EXIT_GRACE, self.kill)

    def ending(self) -> None:
        """Note that it is ending, as after the end of its stdout."""
        self.closed_stdout()

    def exited(self) -> None:
        """Fail the requests in flight with the cause, and report the noise and the exit."""
        outcome = self.outcome()
        self._stop(Unreachable(f"the module went away: {_how(outcome)}", details=outcome))
        self.report_noise(self._notify)
        self._notify("module:exit", {**self.told, **outcome})


def _how(outcome: dict[str, Any]) -> str:
    """Say how the process ended. What else runs in this program may have taken its exit code."""
    if "signal" in outcome:
        return f"killed by {outcome['signal']}"
    if "exit_code" in outcome:
        return f"exit code {outcome['exit_code']}"
    return "its exit code is lost: this program ignores SIGCHLD, or waits for every child"
