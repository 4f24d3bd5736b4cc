"""Amplifier modules as HTTP services: the transport that a descriptor names with ``"type": "http"``.

Owns the entry point, which the kernel loads. The other names are for transports of other protocols over HTTP.
"""

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import Connection, hookimpl

from ._body import Body
from ._connection import HttpConnection
from ._fields import HttpFields, read_fields
from ._pool import Pool
from ._response import Response, unreachable

__all__ = ["Body", "HttpFields", "Pool", "Response", "open_transport", "read_fields", "unreachable"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor) -> Connection:
    """Check the descriptor's ``transport`` and make a connection; nothing is sent yet."""
    return HttpConnection(descriptor, read_fields(descriptor, reserved="traceparent|x-request-id"))
