"""A module that runs: what was mounted, its connection, and the one place where a transport is called.

Owns the connection's life. It asks no policy and sets no deadline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ._errors import Internal, KernelError, causes, one_line

if TYPE_CHECKING:
    from ._chunks import Chunks
    from ._descriptor import ModuleDescriptor
    from ._wire import Message
    from .hookspecs import Connection


class Module:
    """One mounted module, shared by the sessions that hold it."""

    __slots__ = ("_slots", "connection", "description", "descriptor", "granted", "holders", "path", "trusted")

    def __init__(self, path: str, descriptor: ModuleDescriptor, connection: Connection, *, trusted: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.connection = connection
        self.trusted = trusted
        self.granted: tuple[str, ...] = ()
        self.description: dict[str, Any] = {}
        self.holders = 0
        concurrency = descriptor.limits.concurrency
        self._slots = asyncio.Semaphore(concurrency) if concurrency else None

    async def start(self) -> None:
        """Start the module behind its transport, with what was granted."""
        try:
            await self.connection.start(self.granted)
        except KernelError:
            raise
        except Exception as error:
            raise self._foreign(error) from error

    async def call(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Carry one request. Whatever a transport raises arrives as ``KernelError``; waiting for a free slot counts."""
        wanted = (method, params) if chunks is None else (method, params, chunks)
        try:
            if self._slots is None:
                return await self.connection.request(*wanted)
            async with self._slots:
                return await self.connection.request(*wanted)
        except KernelError:
            raise
        except Exception as error:
            raise self._foreign(error) from error

    async def close(self) -> None:
        """End the module; a transport that fails at it is not the caller's concern any more."""
        try:
            await self.connection.close()
        except Exception:  # noqa: BLE001 - foreign code, and there is nothing left to undo
            return

    def _foreign(self, error: Exception) -> Internal:
        kind = self.descriptor.transport["type"]
        return Internal(
            f"transport {kind!r} of {self.path} raised {one_line(error)}", details={"causes": causes(error)}
        )
