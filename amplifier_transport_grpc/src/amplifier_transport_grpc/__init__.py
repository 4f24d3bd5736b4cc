"""Amplifier modules as gRPC services: the transport that a descriptor names with ``"type": "grpc"``.

Owns the entry point, which the kernel loads. ``amplifier/v1/module.proto`` beside this file is the service.
"""

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Connection, hookimpl

from ._connection import GrpcConnection
from ._fields import read_fields

__all__ = ["open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor) -> Connection:
    """Check the descriptor's ``transport`` and make a connection; nothing is sent yet."""
    return GrpcConnection(descriptor, read_fields(descriptor))
