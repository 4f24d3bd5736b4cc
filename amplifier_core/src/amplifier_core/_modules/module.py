"""A module that runs: what was mounted, its connection, and the one place where a transport is called.

Owns the connection's life. It asks no policy and sets no deadline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from amplifier_core._protocol.errors import Internal, KernelError, causes, one_line
from amplifier_core._protocol.json import NotJson, encode
from amplifier_core._protocol.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Isolation
    from amplifier_core.hookspecs._chunks import Chunks

    from .budget import Budget


_CLOSE_SECONDS = 5.0


class Module:
    """One mounted module, shared by the sessions that hold it."""

    __slots__ = (
        "_slots",
        "budget",
        "connection",
        "description",
        "descriptor",
        "granted",
        "holders",
        "isolation",
        "path",
        "trusted",
        "unenforced",
    )

    def __init__(
        self,
        path: str,
        descriptor: ModuleDescriptor,
        connection: Connection,
        isolation: Isolation | None,
        *,
        trusted: bool,
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.connection = connection
        self.isolation = isolation
        self.trusted = trusted
        self.unenforced: tuple[str, ...] = ()  # of its capabilities, those that nobody here holds it to
        self.granted: tuple[str, ...] = ()
        self.description = b""  # JSON, as verified at the mount
        self.holders = 0
        self.budget: Budget | None = None  # once it has started, if its descriptor has one that can be kept
        concurrency = descriptor.limits.concurrency
        self._slots = asyncio.Semaphore(concurrency) if concurrency else None

    async def start(self) -> None:
        """Start the module behind its transport, with what was granted."""
        try:
            await self.connection.start(self.granted, self.isolation)
        except KernelError:
            raise
        except Exception as error:
            raise self._foreign(error) from error
        limits = self.descriptor.limits
        if limits.memory_bytes is not None or limits.cpu_ms is not None:
            from .budget import Budget, can_be_kept  # noqa: PLC0415 - few modules have one

            if can_be_kept(self.connection):
                self.budget = Budget(asyncio.get_running_loop(), self.path, self.connection, limits)
                self.budget.start()

    async def call(
        self, method: str, params: bytes, chunks: Chunks | None = None, sent: Callable[[], None] | None = None
    ) -> Message:
        """Carry one request. Whatever a transport raises arrives as ``KernelError``.

        ``sent`` is called when it is its turn: a module with ``limits.concurrency`` makes requests wait.
        """
        try:
            if self._slots is None:
                if sent is not None:
                    sent()
                reply = await self.connection.request(method, params, chunks)
            else:
                async with self._slots:
                    if sent is not None:
                        sent()
                    reply = await self.connection.request(method, params, chunks)
        except KernelError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Internal(f"{self._who()} cancelled a call that nobody gave up") from error
        except Exception as error:
            raise self._foreign(error) from error
        if type(reply) is not Message or not reply.size:
            self._check(reply)
        return reply

    def clues(self) -> dict[str, Any]:
        """Ask the connection, if it can say, what may explain that no answer comes."""
        clues = getattr(self.connection, "clues", None)
        return dict(clues()) if clues else {}

    async def close(self) -> None:
        """End the module; a transport that fails at it, or takes too long, is not the caller's concern any more."""
        if self.budget is not None:
            self.budget.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.connection.close()
        except Exception:  # noqa: BLE001 - foreign code, and there is nothing left to undo
            return

    def _foreign(self, error: Exception) -> Internal:
        return Internal(f"{self._who()} raised {one_line(error)}", details={"causes": causes(error)})

    def _check(self, reply: object) -> None:
        """Look at a reply that a transport has made rather than decoded: its size, and whether it is JSON at all."""
        if not isinstance(reply, Message):
            raise Internal(f"{self._who()} answered {type(reply).__name__}, which is no Message")
        if not reply.size and reply.result is not UNSET:
            try:
                reply.size = len(encode({"ok": True, "result": reply.result}, "reply"))
            except NotJson as error:
                raise Internal(f"{self._who()} answered nonsense: {error}") from None

    def _who(self) -> str:
        return f"transport {self.descriptor.transport['type']!r} of {self.path}"
