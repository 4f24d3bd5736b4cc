"""A running module: its descriptor, its grants and its connection. Connections are called here and nowhere else.

Owns the start and the end of the connection. It asks no policy and sets no deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UNSET

from amplifier_core._protocol.capability import enforced_by_kernel, reach
from amplifier_core._protocol.errors import Internal, KernelError, add_clues
from amplifier_core._protocol.json import NotJson, encode
from amplifier_core._protocol.message import Message
from amplifier_core.hookspecs import Connection

from .confinement import left_open_by
from .grace import bounded, is_cancelled
from .thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Host, Isolation

    from .budget import Budget
    from .confinement import CheckedConfinement


_CLOSE_SECONDS = 5.0


class Permit(Protocol):
    """Whether a request that had to wait may still be sent."""

    def is_outdated(self) -> bool:
        """Tell whether somebody has to be asked again."""

    async def renew(self) -> None:
        """Ask. Raises the error with which the request ends, if the answer is no."""

    def note_wait(self) -> None:
        """Note that the request has to wait for its turn."""


class Module(msgspec.Struct, eq=False):
    """One mounted module. A session and its forks may share it."""

    path: str
    descriptor: ModuleDescriptor
    connection: Connection
    isolation: Isolation | None
    trusted: bool
    unenforced: tuple[str, ...] = ()  # those of its capabilities that nothing enforces here
    unconfined: tuple[str, ...] = ()  # in what its isolation does not confine it, as `isolation.AREA`
    granted: tuple[str, ...] = ()
    confinement: CheckedConfinement | None = None  # planned at the mount, if it has an isolation
    description: bytes = b""  # JSON, as verified at the mount, or since
    changes: int = 0  # of its description that its connection has reported
    described: int = 0  # how many of them the description knows of
    describing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    holders: int = 0  # how many namespaces hold it
    budget: Budget | None = None  # from its start on, if it has a limit and can be measured
    mounter: Module | None = None  # whose system call mounted it
    mounted: set[Module] = set()  # those that run because it mounted them, or one of them did
    message_bytes: int = 0  # of its largest message
    _slots: asyncio.Semaphore | None = None  # of limits.concurrency

    def __post_init__(self) -> None:
        self.message_bytes = self.descriptor.message_bytes
        if self.descriptor.limits.concurrency:
            self._slots = asyncio.Semaphore(self.descriptor.limits.concurrency)

    @property
    def is_outdated(self) -> bool:
        """Whether the module has said that its description is another one now."""
        return self.changes != self.described

    async def survey(self) -> None:
        """Let the connection look at where a remote module runs. Raises a ``KernelError``."""
        with _Blamed(self, "survey"):
            await bounded(self.connection.survey(), self.label())

    async def start(self, host: Host) -> None:
        """Start the module through its transport, with the granted capabilities. The host has the kernel's meter."""
        limits = self.descriptor.limits
        with _Blamed(self, "start"):
            await bounded(self.connection.start(self.granted, self.confinement), self.label())
            wanted = limits.memory_bytes is not None or limits.cpu_ms is not None
            measured = wanted and self.connection.usage(exact=False) is not None
        if measured:
            from .budget import Budget  # noqa: PLC0415 - few modules have one
            from .meter import Meter  # noqa: PLC0415

            self.budget = Budget(self.path, self.connection, limits, host.shared(Meter))
            self.budget.start()

    async def call(
        self,
        method: str,
        params: bytes,
        chunks: Chunks | None = None,
        sent: Callable[[], None] | None = None,
        permit: Permit | None = None,
    ) -> Message:
        """Send one request and return the reply. Any exception of the transport is raised as a ``KernelError``.

        ``sent`` is called when the request is sent: with ``limits.concurrency`` a request may have to wait first. If
        its ``permit`` is outdated then, it is renewed before, and what that raises is raised here.
        """
        if self._slots is not None:
            await self._take_slot(self._slots, permit)
        try:
            with _Blamed(self, "request"):
                if sent is not None:
                    sent()
                request = self.connection.request(method, params, chunks)
                del params  # they may be large, and the reply too
                reply = await bounded(request, "its transport")
        finally:
            if self._slots is not None:
                self._slots.release()
        if type(reply) is not Message or not reply.size:
            self._check(reply)
        return reply

    async def _take_slot(self, slots: asyncio.Semaphore, permit: Permit | None) -> None:
        if permit is not None and slots.locked():
            permit.note_wait()
        await self._acquire(slots)
        while permit is not None and permit.is_outdated():
            slots.release()  # who is asked may need one
            await permit.renew()
            await self._acquire(slots)

    async def _acquire(self, slots: asyncio.Semaphore) -> None:
        try:
            await slots.acquire()
        except asyncio.CancelledError as error:
            count = self.descriptor.limits.concurrency
            add_clues(error, phase="turn", waited_for=f"its turn: limits.concurrency ({count}) requests were in flight")
            raise

    def name_in(self, error: KernelError) -> None:
        """Let an error of the connection name the module, whose path a transport does not know.

        One about the caller's ``args`` begins with these, as the kernel's own do.
        """
        if not error.replied and self.path not in error.message and not error.message.startswith("args"):
            error.reword(f"{self.path}: {error.message}")

    def mounters(self) -> Iterator[Module]:
        """Give the module that mounted this one, the one that mounted that one, and so on."""
        above = self.mounter
        while above is not None:
            yield above
            above = above.mounter

    async def find_unenforced(self, words: Iterable[str]) -> tuple[str, ...]:
        """List those of some capabilities that nothing enforces here: neither kernel nor transport nor isolation.

        Raises what the isolation raises, as a ``KernelError``.
        """
        open_ = tuple(word for word in dict.fromkeys(words) if self._is_left_open(word))
        if self.isolation is None or not open_:
            return open_
        return await in_thread(partial(left_open_by, self.isolation, open_))

    def clues(self) -> dict[str, Any]:
        """Give the connection's clues why no reply comes, for the ``details`` of a timeout."""
        return dict(self.connection.clues())

    async def close(self) -> None:
        """End the module in bounded time. An error of the transport is ignored: nothing is left to undo."""
        if self.budget is not None:
            self.budget.close()
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await bounded(self.connection.close(), self.label())
            if self.confinement is not None:
                await self.confinement.end()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
        finally:
            for above in self.mounters():
                above.mounted.discard(self)

    def _is_left_open(self, word: str) -> bool:
        """Tell whether the transport leaves a capability to others. Of a narrowed one it is asked by what covers it."""
        if enforced_by_kernel(word) or word.startswith("x-"):  # policy alone knows what that means
            return False
        left = self.connection.unenforced
        return word in left if word in self.descriptor.capabilities else reach(left).covers(word)

    def _check(self, reply: object) -> None:
        """Check a reply that a transport built without decoding: it has to be a ``Message`` of JSON. Set its size."""
        if not isinstance(reply, Message):
            raise Internal(f"{self.label()} returned {type(reply).__name__}, expected Message")
        if not reply.size and reply.result is not UNSET:
            try:
                reply.size = len(encode({"ok": True, "result": reply.result}, "reply"))
            except NotJson as error:
                raise Internal(f"{self.label()} returned a result that is not JSON: {error}") from None

    def label(self) -> str:
        """Name the module's transport, for a message."""
        return f"transport {self.descriptor.transport['type']!r} of {self.path}"


class _Blamed:
    """Makes a ``KernelError`` that names the module of whatever foreign code raises. A class: it costs calls less."""

    __slots__ = ("_module", "_what")

    def __init__(self, module: Module, what: str) -> None:
        self._module, self._what = module, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KernelError):
            self._module.name_in(error)
        elif isinstance(error, asyncio.CancelledError):
            if not is_cancelled():
                who = self._module.label()
                raise Internal(f"{who} cancelled a {self._what} that the kernel had not cancelled") from error
        elif isinstance(error, Exception):
            raise KernelError.from_exception(error, self._module.label()) from error


def as_connection(opened: Any) -> Connection:
    """Give the object that a transport opened as a ``Connection``, adapted if its class does not derive from that.

    Raises ``Internal`` for a local connection without ``launch``.
    """
    if isinstance(opened, Connection):
        return opened
    if opened.local and not hasattr(opened, "launch") and not getattr(opened, "confined", False):
        raise Internal(f"the transport opened {type(opened).__name__}, which is local and has no launch")
    return _Adapter(opened)


class _Adapter(Connection):
    """Adapts a connection that does not derive from the base class: members that it lacks have the base's defaults."""

    def __init__(self, inner: Any) -> None:
        self.local = inner.local
        self.confined = getattr(inner, "confined", False)
        self.unenforced = inner.unenforced
        self.endpoints = getattr(inner, "endpoints", ())
        self._inner = inner
        measures = callable(getattr(inner, "usage", None)) and callable(getattr(inner, "kill", None))
        for name in ("launch", "clues", "survey", *(("usage", "kill") if measures else ())):
            if callable(member := getattr(inner, name, None)):
                setattr(self, name, member)

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        await self._inner.start(granted, confinement)

    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        reply: Awaitable[Message] = self._inner.request(method, params, chunks)
        return reply

    async def close(self) -> None:
        await self._inner.close()
