"""The processes of one module, one after another: how they are started, and what the last one uses.

Owns the launch, its confinement and ``module:start``. When another process is due is for the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import Usage

from ._child import ChildProcess
from ._unreaped import Unreaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Confinement, Launch, Notify

    from ._fields import StdioFields
    from ._line_stream import LineReader
    from ._orphans import OrphanKiller

    Heard = tuple[ChildProcess | None, int]
    """A process, and how much of its stderr had been read."""


class Launcher:
    """Starts the processes of one module. ``kill``, ``clues`` and ``usage`` are about the last one."""

    def __init__(
        self, descriptor: ModuleDescriptor, fields: StdioFields, notify: Notify, orphans: OrphanKiller
    ) -> None:
        self._descriptor = descriptor
        self._fields = fields
        self._notify = notify
        self._orphans = orphans
        self._granted: Sequence[str] = ()
        self._confinement: Confinement | None = None
        self._unreaped = Unreaped()
        self._children: list[ChildProcess] = []  # the last one is in use; earlier ones may still be ending

    def launch(self) -> Launch:
        """Give what is started if all capabilities of the descriptor are granted."""
        return self._fields.launch(self._descriptor.capabilities)

    def grant(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Note what processes may do from now on, and how they are confined."""
        self._granted = granted
        self._confinement = confinement

    def start(self, reader: LineReader) -> ChildProcess:
        """Start a process, confined to what was granted, or with what was granted of the host's environment."""
        launch = self._fields.launch(self._granted)
        if self._confinement is not None:
            launch = self._confinement.confine(launch, self._granted)
        command = self._fields.command
        child = ChildProcess(launch, reader, self._descriptor.message_bytes, self._notify, self._orphans, command)
        self._unreaped = Unreaped()
        self._children = [*(earlier for earlier in self._children if not earlier.gone), child]
        self._notify("module:start", {"pid": child.pid, "command": list(command), **launch.shown})
        return child

    def kill(self, error: KernelError) -> None:
        """Kill the process with all that it started; requests in flight fail with the error."""
        for child in self._children[-1:]:
            child.kill(error)

    def clues(self, since: Heard | None = None) -> dict[str, Any]:
        """Give what may explain a missing answer, of the last process, or of it ``since`` then."""
        return self._children[-1].clues(self._mark(since)) if self._children else {}

    def heard(self) -> Heard:
        """Say how far the last process has been heard."""
        return (self._children[-1], self._children[-1].heard) if self._children else (None, 0)

    def explain(self, details: Mapping[str, Any], since: Heard) -> dict[str, Any]:
        """Give the details of an error to a request that was made ``since`` then: stderr from before is told apart.

        Those of an earlier process than the last one stay as they are. Call it after a ``start``.
        """
        child = self._children[-1]
        ours = details.get("pid", child.pid) == child.pid
        return child.explain(details, self._mark(since)) if ours else dict(details)

    def _mark(self, since: Heard | None) -> int:
        """Give how much of the stderr of the last process is from before."""
        return since[1] if since and since[0] is self._children[-1] else 0

    def usage(self, *, exact: bool, settling: bool) -> Usage | None:
        """Measure what the process and its descendants use; ``None`` if there is no process, or no way to measure.

        It asks the system about each process, so call it in a thread. Raises ``Oom`` if there are too many processes.
        """
        for child in self._children[-1:]:
            if child.usable and (used := child.measure(exact=exact, unreaped=self._unreaped)) is not None:
                return Usage(*used, settling=settling)
        return None

    async def close(self) -> None:
        """End all processes, and wait until they are gone."""
        await asyncio.gather(*(child.close() for child in self._children))
