"""STDIO JSON: modules that are child processes, one JSON object a line on stdin and stdout (protocol, section 3).

``SocketConnection`` is for transports that carry the same lines over another stream, such as a TCP or Unix socket.
``StdioConnection`` is for those that run another program with the same lines; ``Launcher``, ``ChildProcess`` with its
``LineStream``, ``find_ids`` and ``read_fields`` for those that run child processes with other protocols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl

from ._child import ChildProcess
from ._connection import StdioConnection
from ._fields import StdioFields, read_fields
from ._framing import find_ids
from ._launcher import Launcher
from ._line_stream import LineReader, LineStream
from ._orphans import OrphanKiller
from ._process import tree_here
from ._socket import SocketConnection

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Host, Notify

__all__ = [
    "ChildProcess",
    "Launcher",
    "LineReader",
    "LineStream",
    "OrphanKiller",
    "SocketConnection",
    "StdioConnection",
    "StdioFields",
    "describe_host",
    "find_ids",
    "open_transport",
    "read_fields",
]


@hookimpl
def describe_host() -> dict[str, str]:
    """Say how budgets are measured here, and which processes of a trusted module are killed at its end."""
    return tree_here().describe()


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify, host: Host) -> StdioConnection:
    """Check the descriptor's ``transport`` and make a connection; the process starts later."""
    launcher = Launcher(descriptor, read_fields(descriptor), notify, host.shared(OrphanKiller))
    return StdioConnection(descriptor, launcher, notify)
