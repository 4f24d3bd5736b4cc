"""STDIO JSON: modules that are child processes, one JSON object a line on stdin and stdout (protocol, section 3).

``Process``, ``Orphans`` and ``read_fields`` are for transports that run child processes too, and speak something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl

from ._connection import StdioConnection
from ._fields import StdioFields, read_fields
from ._orphans import Orphans
from ._process import Process, Reader

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Host, Notify

__all__ = ["Orphans", "Process", "Reader", "StdioFields", "open_transport", "read_fields"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify, host: Host) -> StdioConnection:
    """Check the descriptor's ``transport`` and make a connection; the process starts later."""
    return StdioConnection(descriptor, read_fields(descriptor), notify, host.shared(Orphans))
