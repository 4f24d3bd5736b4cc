"""Amplifier: a small kernel for systems of AI agents. Mechanism only: sessions, modules, events, a gate, transports."""

from ._kernel import VERSION, Kernel
from ._protocol.descriptor import Limits, ModuleDescriptor, ModuleKind, load_descriptor
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
from ._protocol.gate import Decision, Scope, Verdict
from ._protocol.plan import Plan
from ._session import Context, Session, Sessions
from ._sessions.namespace import MountPath
from ._syscalls.hooks import Hook
from ._syscalls.span import SessionSpan
from ._syscalls.stream import Stream

__all__ = [
    "BadRequest", "BudgetExceeded", "Cancelled", "Context", "Decision", "Event", "Forbidden", "Hook", "Internal",
    "Kernel", "KernelError", "Limits", "ModuleDescriptor", "ModuleKind", "MountPath", "Oom", "Plan", "Scope", "Session",
    "SessionSpan", "Sessions", "Stream", "Timeout", "Unreachable", "UnsupportedOp", "Verdict", "load_descriptor",
]  # fmt: skip

__version__: str = VERSION
"""The version of the distribution."""
