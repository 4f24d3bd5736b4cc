"""STDIO JSON: modules that are child processes, one JSON object a line on stdin and stdout (protocol, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl

from ._connection import StdioConnection
from ._fields import read_fields

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Notify

__all__ = ["open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify) -> StdioConnection:
    """Check the descriptor's ``transport`` and make a connection; the process starts later."""
    return StdioConnection(descriptor, read_fields(descriptor), notify)
