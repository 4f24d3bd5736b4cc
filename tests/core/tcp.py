"""A transport over TCP: a module that somebody else runs, with section 3's lines on a port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl
from amplifier_transport_stdio import SocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Notify


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify) -> TcpConnection:
    """Check ``port``, and make a connection that is opened later."""
    port = descriptor.transport.get("port")
    if type(port) is not int or not 0 < port < 2**16:
        raise descriptor.misfit(".port", f"expected a port, got {port!r}")
    return TcpConnection(port, descriptor, notify)


class TcpConnection(SocketConnection):
    """One module on a port of the loopback."""

    def __init__(self, port: int, descriptor: ModuleDescriptor, notify: Notify) -> None:
        super().__init__(descriptor, notify, f"port {port}")
        self._port = port
        self.endpoints = (f"127.0.0.1:{port}",)

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> object:
        """Connect to the port."""
        return await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", self._port)
