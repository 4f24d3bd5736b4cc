"""Amplifier modules as HTTP services: the transport that a descriptor names with ``"type": "http"``.

Owns the door alone. There is nothing to import: the kernel loads this through its entry point.
"""

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Connection, hookimpl

from ._fields import Fields
from ._module import RemoteModule

__all__ = ["open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor) -> Connection:
    """Make the connection to one remote module. Its process is not ours: there is no start, exit or noise to report."""
    return RemoteModule(descriptor, Fields.read(descriptor))
