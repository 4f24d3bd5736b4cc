"""Amplifier modules on many machines, over NATS: the transport that a descriptor names with ``"type": "nats"``.

Owns the entry point, which the kernel loads. ``python -m amplifier_transport_nats`` is the worker that serves a module,
and PROTOCOL.md says what the two say to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import hookimpl

from ._connection import NatsConnection
from ._fields import read_fields
from ._link import shared_link

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Host, Notify

__all__ = ["open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify, host: Host) -> Connection:
    """Check the descriptor's ``transport`` and make a connection; nothing is sent yet."""
    fields = read_fields(descriptor)
    return NatsConnection(descriptor, fields, shared_link(host, fields.place), notify)
