"""A module's start as the kernel makes it: its transport, and the isolation that confines it. For checks of modules.

Owns no rule of the kernel's: which plugin and which isolation it is, the kernel's own code says.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from amplifier_core._modules.confinement import CheckedConfinement, left_open_by, why_left_open
from amplifier_core._modules.host import KernelHost
from amplifier_core._modules.module import as_connection
from amplifier_core._modules.plugins import Plugins
from amplifier_core._modules.thread import in_thread
from amplifier_core._protocol.errors import Forbidden
from amplifier_core.hookspecs import TRANSPORTS, Host, Isolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core.hookspecs import Confinement, Connection, Launch, Notify


def open_connection(
    descriptor: ModuleDescriptor,
    host: Host,
    notify: Notify | None = None,
    open_transport: Callable[..., Connection | None] | None = None,
) -> Connection:
    """Open the connection that the descriptor's ``transport`` names, and start nothing yet.

    What it reports is ignored unless there is a ``notify``. ``open_transport`` is that of ``Kernel``. Raises
    ``BadRequest`` as a mount does.
    """
    name, plugins = descriptor.transport["type"], Plugins(open_transport)
    return as_connection(plugins.open(TRANSPORTS, name, descriptor=descriptor, notify=notify or _ignore, host=host))


async def choose_isolation(isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None) -> Isolation:
    """Choose an isolation as ``Kernel(isolation=…)`` does. Raises ``Forbidden`` if none works here."""
    host = KernelHost(Plugins(), isolation)
    try:
        return await host.isolation()
    finally:
        await host.close()


async def confine(
    launch: Launch,
    descriptor: ModuleDescriptor,
    *,
    isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None,
) -> tuple[Isolation, Confinement]:
    """Choose an isolation as ``Kernel(isolation=…)`` does, and plan how it confines the module with all it declares.

    One that was chosen before is not tried again. Raises ``Forbidden`` if none works here, or if it cannot enforce a
    capability that the module declares.
    """
    chosen = isolation if isinstance(isolation, Isolation) else await choose_isolation(isolation)
    words = [word for word in descriptor.capabilities if not word.startswith(("sys:", "x-"))]
    if refused := await in_thread(partial(left_open_by, chosen, words)):
        raise Forbidden(
            f"{chosen.name} cannot enforce {', '.join(why_left_open(chosen, word) for word in refused)} on this host"
        )
    return chosen, CheckedConfinement(chosen.name, await in_thread(partial(chosen.plan, launch, descriptor)))


def _ignore(event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
    """Ignore what a connection reports."""
