"""Servers of the Model Context Protocol as modules: the transport that a descriptor names with ``"type": "mcp"``.

Owns the entry point alone. The SDK, which takes half a second to import, is imported when a module is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl
from amplifier_transport_stdio import Launcher, OrphanKiller, StdioFields

from ._connection import McpHttpConnection, McpStdioConnection
from ._fields import read_fields

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Host, Notify

__all__ = ["open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify, host: Host) -> McpHttpConnection | McpStdioConnection:
    """Check the descriptor's ``transport`` and make a connection; nothing is started or connected yet."""
    fields, inputs = read_fields(descriptor)
    if isinstance(fields, StdioFields):
        launcher = Launcher(descriptor, fields, notify, host.shared(OrphanKiller))
        return McpStdioConnection(descriptor, inputs, notify, launcher)
    return McpHttpConnection(descriptor, inputs, notify, fields)
