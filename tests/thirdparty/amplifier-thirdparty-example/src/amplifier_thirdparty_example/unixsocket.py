"""The transport ``unixsocket``: a module that somebody else runs, behind a Unix domain socket.

Both sides speak the JSON lines of the protocol's section 3, over one connection that all requests share.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl
from amplifier_transport_stdio import SocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Notify

__all__ = ["open_transport"]

_PATH_BYTES = 103  # the longest path of a socket that every system takes


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify) -> UnixSocketConnection:
    """Check ``path``, and make a connection that is opened later."""
    for field in descriptor.transport:
        if field not in ("type", "path"):
            raise descriptor.misfit(f".{field}", "expected one of type, path")
    path = descriptor.transport.get("path")
    if not isinstance(path, str) or not path or not path.isprintable():
        raise descriptor.misfit(".path", f"expected the path of a socket, got {path!r}")
    full = str(descriptor.base / path)
    if len(full.encode()) > _PATH_BYTES:
        raise descriptor.misfit(".path", f"expected a path of at most {_PATH_BYTES} bytes, got {full!r}")
    return UnixSocketConnection(full, descriptor, notify)


class UnixSocketConnection(SocketConnection):
    """One module. Requests, chunks, cancels and another connection after an end are the base class's."""

    def __init__(self, path: str, descriptor: ModuleDescriptor, notify: Notify) -> None:
        super().__init__(descriptor, notify, f"socket {path}")
        self._path = path

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> object:
        """Connect to the socket."""
        return await asyncio.get_running_loop().create_unix_connection(protocol, self._path)
