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
from amplifier_core.hookspecs import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Isolation

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
        limits = self.descriptor.limits
        try:
            await self.connection.start(self.granted, self.isolation)
            wanted = limits.memory_bytes is not None or limits.cpu_ms is not None
            measured = wanted and self.connection.usage(exact=False) is not None
        except KernelError:
            raise
        except Exception as error:
            raise self._foreign(error) from error
        if measured:
            from .budget import Budget  # noqa: PLC0415 - few modules have one

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
        """Give what may explain that no answer comes."""
        return dict(self.connection.clues())

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


def as_connection(opened: Any) -> Connection:
    """Give what a transport opened as a ``Connection``. A class of the same shape need not derive from that one.

    Raises ``Internal`` for a local connection that says nothing of what it starts.
    """
    if isinstance(opened, Connection):
        return opened
    if opened.local and not hasattr(opened, "launch"):
        raise Internal(f"the transport opened {type(opened).__name__}, which is local and has no launch")
    return _Adapter(opened)


class _Adapter(Connection):
    """A connection that does not derive from the base class: its own members, and the defaults for those it lacks."""

    def __init__(self, inner: Any) -> None:
        self.local = inner.local
        self.unenforced = inner.unenforced
        self._inner = inner
        measures = callable(getattr(inner, "usage", None)) and callable(getattr(inner, "kill", None))
        for name in ("launch", "clues", *(("usage", "kill") if measures else ())):
            if callable(member := getattr(inner, name, None)):
                setattr(self, name, member)

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:
        await self._inner.start(granted, isolation)

    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        answer: Awaitable[Message] = self._inner.request(method, params, chunks)
        return answer

    async def close(self) -> None:
        await self._inner.close()
