"""The connection to one module that speaks lines: its requests, and another stream after an end.

Owns when a stream is opened. Which reply belongs to which request is the correlator's, bytes are the stream's.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING

from amplifier_core import Unreachable
from amplifier_core.hookspecs import Connection, add_clues

from ._correlator import GRACE

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Message

    from ._correlator import Correlator


class LineConnection(Connection):
    """One module. Its stream is opened by ``start``, and again by the first request after its end."""

    def __init__(self, descriptor: ModuleDescriptor) -> None:
        self.unenforced: tuple[str, ...] = tuple(
            word for word in descriptor.capabilities if not word.startswith(("sys:", "x-"))
        )
        self._current: Correlator
        self._closed = False

    @abstractmethod
    async def begin(self) -> Correlator:
        """Open a stream, unless another request has done so meanwhile, and give its correlator."""

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
            current = await self.begin()
        try:
            reply = current.send(method, params, chunks)
        except BrokenPipeError:  # it had ended unnoticed, or closed its stdin
            current.closed_stdin()
            current = await self.begin()
            reply = current.send(method, params, chunks)
        try:
            return await reply
        finally:
            if chunks is not None:
                current.drop_chunks(reply.id)

    async def _settle(self, chunks: Chunks | None) -> None:
        """Wait while a cancelled request is in its grace: a request sent now would end with the stream."""
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
