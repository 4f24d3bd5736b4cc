"""A module that runs here without a kernel: started, isolated and held to its limits as a kernel's own.

For programs that serve a local module to kernels elsewhere. Owns one module. It has no session and no log, and asks no
policy: whoever starts such a program grants all that the descriptor declares. A reply that is ``pending`` is given as
it is, since the system calls are made where the kernel is.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from ._modules.confinement import CheckedConfinement, unconfined_by
from ._modules.deadline import Deadlines
from ._modules.host import KernelHost
from ._modules.module import Module, as_connection
from ._modules.plugins import Plugins
from ._modules.thread import in_thread
from ._protocol.errors import Forbidden, KernelError, one_line
from ._syscalls.describe import check_health, verify_description
from ._syscalls.startup import check_enforceable
from .hookspecs import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ._protocol.descriptor import ModuleDescriptor
    from .hookspecs import Chunks, Isolation, Message, Notify

__all__ = ["HostedModule"]

_SECONDS = 30.0  # of a start, and of a request that names no time


class HostedModule:
    """One module of a descriptor. ``async with HostedModule(descriptor) as module`` starts it, and ends it.

    ``isolation`` is that of ``Kernel``, ``trusted`` that of ``Session.mount``. ``notify`` hears what the transport
    reports. Making one opens the connection, which starts nothing. Raises ``BadRequest`` as a mount does.
    """

    def __init__(
        self,
        descriptor: ModuleDescriptor,
        *,
        trusted: bool = False,
        isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None,
        notify: Notify | None = None,
    ) -> None:
        plugins = Plugins()
        self._host = KernelHost(plugins, isolation)
        self._deadlines = Deadlines(asyncio.get_running_loop())
        name = descriptor.transport["type"]
        opened = plugins.open(TRANSPORTS, name, descriptor=descriptor, notify=notify or _ignore, host=self._host)
        connection = as_connection(opened)
        trust = trusted and connection.local
        self._module = Module(descriptor.name, descriptor, connection, None, trusted=trust)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def description(self) -> bytes:
        """What the module says of itself, verified against its descriptor, as JSON."""
        return self._module.description

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What is granted to it: all that its descriptor declares."""
        return self._module.descriptor.capabilities

    @property
    def isolation(self) -> str | None:
        """The name of the isolation that confines it; ``None``: none does."""
        return self._module.isolation.name if self._module.isolation else None

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Those of its capabilities that nothing enforces here, and ``isolation.AREA`` for what is not confined."""
        return (*self._module.unenforced, *self._module.unconfined)

    async def start(self, seconds: float = _SECONDS) -> None:
        """Isolate and start the module, and verify its health and its description.

        Raises a ``KernelError``: ``Forbidden`` if no isolation works here, or if it enforces less than is declared.
        """
        try:
            with self._deadlines.within(seconds, f"starting {self._module.path}"):
                await self._confine()
                await self._module.start(self._host)
                await check_health(self._module)
                await verify_description(self._module)
        except BaseException:
            await self.close()
            raise

    async def request(
        self, method: str, params: bytes, chunks: Chunks | None = None, seconds: float = _SECONDS
    ) -> Message:
        """Carry one request, and give its reply. A module that has ended is started again.

        Raises a ``KernelError``, such as ``Timeout`` after ``seconds``, or for a budget of the descriptor's ``limits``.
        """
        with self._deadlines.within(seconds, f"{self._module.path} {method}") as deadline:
            if self._module.budget is None:
                return await self._module.call(method, params, chunks)
            async with self._module.budget.charged(deadline):
                return await self._module.call(method, params, chunks)

    def clues(self) -> dict[str, Any]:
        """Give what may explain that no answer comes."""
        return self._module.clues()

    async def close(self) -> None:
        """End the module in bounded time. Idempotent."""
        await self._module.close()
        await self._host.close()
        self._deadlines.close()

    async def _confine(self) -> None:
        """Choose and plan the isolation of a local module that nothing else confines. Raises ``Forbidden``."""
        module = self._module
        if module.connection.local and not module.connection.confined and not module.trusted:
            module.isolation = isolation = await self._isolation()
            module.unconfined = unconfined_by(isolation)
        module.granted = module.descriptor.capabilities
        module.unenforced = await module.find_unenforced(module.granted)
        check_enforceable(module)
        if module.isolation is None:
            return
        plan = partial(module.isolation.plan, module.connection.launch(), module.descriptor)
        try:
            planned = await in_thread(plan)
        except Exception as error:
            raise KernelError.from_exception(
                error, f"isolation {module.isolation.name!r}: {one_line(error)}"
            ) from error
        module.confinement = CheckedConfinement(module.isolation.name, planned)

    async def _isolation(self) -> Isolation:
        try:
            return await self._host.isolation()
        except Forbidden:
            self._module.connection.launch()  # one that no isolation could confine says so
            raise


def _ignore(event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
    """Ignore what a connection reports."""
