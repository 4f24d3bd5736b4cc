"""The connection to one STDIO module: a child process, and another one after its end.

Owns when a process is started. Its requests are those of any module that speaks lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._correlator import Correlator
from ._line_connection import LineConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Confinement, Launch, Notify, Usage

    from ._launcher import Launcher


class StdioConnection(LineConnection):
    """One module as a child process. It is started again by the first request after its end."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, launcher: Launcher, notify: Notify) -> None:
        super().__init__(descriptor)
        self._launcher = launcher
        self._notify = notify

    def launch(self) -> Launch:
        """Give what is started if all capabilities of the descriptor are granted."""
        return self._launcher.launch()

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Start the process."""
        self._launcher.grant(granted, confinement)
        await self.begin()

    async def begin(self) -> Correlator:
        """Start a process. Nothing is waited for."""
        self._current = Correlator(self._launcher.start, self._notify)
        return self._current

    def clues(self) -> dict[str, Any]:
        """Give what may explain a missing answer."""
        return self._launcher.clues()

    def kill(self, error: KernelError) -> None:
        """Kill the process with all that it started; requests in flight fail with the error."""
        self._launcher.kill(error)

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        self._closed = True
        await self._launcher.close()

    def usage(self, *, exact: bool) -> Usage | None:
        """Measure the process and its descendants."""
        return self._launcher.usage(exact=exact, settling=self._current.settling)
