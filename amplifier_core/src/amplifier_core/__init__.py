"""Amplifier: a small kernel for systems of AI agents. Mechanism only: sessions, modules, events, a gate, transports."""

from ._kernel import Kernel
from ._protocol.descriptor import Limits, ModuleDescriptor, load_descriptor
from ._protocol.errors import (
    BadRequest,
    BudgetExceeded,
    Cancelled,
    Forbidden,
    Internal,
    KernelError,
    Oom,
    Timeout,
    Unreachable,
    UnsupportedOp,
)
from ._protocol.event import Event
from ._protocol.plan import Plan
from ._session import Context, Session, Sessions
from ._syscalls.stream import Stream

__all__ = [
    "BadRequest", "BudgetExceeded", "Cancelled", "Context", "Event", "Forbidden", "Internal", "Kernel", "KernelError",
    "Limits", "ModuleDescriptor", "Oom", "Plan", "Session", "Sessions", "Stream", "Timeout", "Unreachable",
    "UnsupportedOp", "load_descriptor",
]  # fmt: skip
