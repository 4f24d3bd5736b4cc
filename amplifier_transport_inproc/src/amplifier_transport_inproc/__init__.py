"""Python objects in the embedder's own process as modules: the transport that a descriptor names ``"inproc"``.

``descriptor_of`` describes a live object. An object has one of two shapes: ``PlainModule``, whose ``invoke`` gets a
``Context``, or ``InprocModule``. What is mounted so is part of the embedder's program, and is trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core import Forbidden
from amplifier_core.hookspecs import hookimpl

from ._answering import Answering, InprocModule
from ._connection import InprocConnection
from ._context import Context
from ._descriptor import descriptor_of, find_object
from ._plain import PlainModule

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Notify

__all__ = ["Answering", "Context", "InprocModule", "PlainModule", "descriptor_of", "open_transport"]


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify) -> Connection:
    """Check the descriptor's ``transport`` and make a connection; nothing is imported yet.

    Raises ``Forbidden`` for a descriptor that a module sent: it would run with all rights of the embedder.
    """
    if descriptor.caller is not None:
        raise Forbidden(f"{descriptor.source}: a module mounts nothing in the embedder's own process")
    return InprocConnection(descriptor, find_object(descriptor), notify)
