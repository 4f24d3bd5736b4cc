"""Amplifier: a small kernel for systems of AI agents. Mechanism only: sessions, modules, events, a gate, transports."""

from ._descriptor import Limits, ModuleDescriptor, load_descriptor
from ._errors import (
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
from ._event import Event
from ._kernel import Kernel
from ._plan import Plan
from ._session import Context, Session, Sessions
from ._stream import Stream

__all__ = [
    "BadRequest",
    "BudgetExceeded",
    "Cancelled",
    "Context",
    "Event",
    "Forbidden",
    "Internal",
    "Kernel",
    "KernelError",
    "Limits",
    "ModuleDescriptor",
    "Oom",
    "Plan",
    "Session",
    "Sessions",
    "Stream",
    "Timeout",
    "Unreachable",
    "UnsupportedOp",
    "load_descriptor",
]
