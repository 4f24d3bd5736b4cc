"""The connection to one STDIO module: its requests, and another process after an end.

Owns when a process is started. Which reply belongs to which request is the correlator's, bytes are the process's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import Connection, add_clues

from ._child import GRACE
from ._correlator import Correlator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Launch, Message, Notify, Usage

    from ._launcher import Launcher


class StdioConnection(Connection):
    """One module as a child process. It is started again by the first request after its end."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, launcher: Launcher, notify: Notify) -> None:
        self.unenforced: tuple[str, ...] = tuple(
            word for word in descriptor.capabilities if not word.startswith(("sys:", "x-"))
        )
        self._launcher = launcher
        self._notify = notify
        self._current: Correlator
        self._closed = False

    def launch(self) -> Launch:
        """Give what is started if all capabilities of the descriptor are granted."""
        return self._launcher.launch()

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Start the process."""
        self._launcher.grant(granted, confinement)
        self._begin()

    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        """Send one request, and give the future of its reply: a coroutine would cost half as much again."""
        current = self._current
        if current.ready and chunks is None:
            try:
                return current.send(method, params)
            except BrokenPipeError:
                current.closed_stdin()
        return self._request(method, params, chunks)

    async def _request(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        await self._settle(chunks)
        if self._closed:
            raise Unreachable("the module was unmounted")
        if not (current := self._current).child.usable:
            current = self._begin()
        try:
            reply = current.send(method, params, chunks)
        except BrokenPipeError:  # it had ended unnoticed, or closed its stdin
            current.closed_stdin()
            current = self._begin()
            reply = current.send(method, params, chunks)
        try:
            return await reply
        finally:
            if chunks is not None:
                current.drop_chunks(reply.id)

    async def _settle(self, chunks: Chunks | None) -> None:
        """Wait while a cancelled request is in its grace: a request sent now would end with the process."""
        if not self._current.settling:
            return
        if chunks is not None:
            chunks.hold()
        try:
            while self._current.settling and not self._closed:
                await self._current.settled.wait()
        except asyncio.CancelledError as error:
            add_clues(error, phase="grace", waited_for=GRACE)
            raise
        if chunks is not None:
            chunks.sent()

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

    def _begin(self) -> Correlator:
        self._current = Correlator(self._launcher.start, self._notify)
        return self._current

    def usage(self, *, exact: bool) -> Usage | None:
        """Measure the process and its descendants."""
        return self._launcher.usage(exact=exact, settling=self._current.settling)
