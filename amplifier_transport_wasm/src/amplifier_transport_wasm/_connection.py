"""The connection to one WASI program: a host process that runs it, and another one after its end.

Owns what it confines, and what it measures. Its requests are those of the stdio transport.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from amplifier_core.hookspecs import Usage
from amplifier_transport_stdio import StdioConnection

from ._opened import cannot_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Confinement, Notify

    from ._launcher import HostLauncher


class WasmConnection(StdioConnection):
    """One WASI program. The engine confines it: there is nothing in it but what was opened."""

    confined: bool = True

    def __init__(self, descriptor: ModuleDescriptor, launcher: HostLauncher, notify: Notify) -> None:
        super().__init__(descriptor, launcher, notify)
        self.unenforced: tuple[str, ...] = cannot_open(descriptor.capabilities)
        self._hosts = launcher

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - its own
        """Look at what was granted, and start the host process. The module compiles and begins later."""
        await asyncio.to_thread(self._hosts.prepare, granted)
        await self.begin()

    def usage(self, *, exact: bool) -> Usage | None:  # noqa: ARG002 - each is
        """Give what the host process has reported of the module; ``None`` if it has no budget.

        Nothing is measured in the processes here: memory is that of the module alone, CPU time also of what the engine
        does for it.
        """
        if not self._hosts.reports:
            return None
        cpu_ms, memory_bytes = 0.0, 0
        with contextlib.suppress(ValueError):  # the loop has closed it meanwhile
            if (report := self._hosts.report) is not None:
                cpu_ms, memory_bytes = report.read()
        return Usage(cpu_ms, memory_bytes, settling=self._current.settling)
