"""Amplifier modules as HTTP services: the transport that a descriptor names with ``"type": "http"``.

Owns the door alone: the kernel loads it through its entry point. ``Pool``, the connections to one origin behind httpx's
types, is for transports that speak HTTP too, and something else over it.
"""

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Connection, hookimpl

from ._fields import Fields
from ._module import RemoteModule
from ._pool import Pool

__all__ = ["Pool", "open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor) -> Connection:
    """Make the connection to one remote module. Its process is not ours: there is no start, exit or noise to report."""
    return RemoteModule(descriptor, Fields.read(descriptor))
