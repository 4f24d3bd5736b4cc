"""Amplifier: a small kernel for systems of AI agents. Mechanism only: sessions, modules, events, a gate, transports."""

from typing import TYPE_CHECKING

from ._kernel import Kernel
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
from ._syscalls.stream import Stream

__all__ = [
    "BadRequest", "BudgetExceeded", "Cancelled", "Context", "Decision", "Event", "Forbidden", "Hook", "Internal",
    "Kernel", "KernelError", "Limits", "ModuleDescriptor", "ModuleKind", "MountPath", "Oom", "Plan", "Scope", "Session",
    "Sessions", "Stream", "Timeout", "Unreachable", "UnsupportedOp", "Verdict", "load_descriptor",
]  # fmt: skip

if TYPE_CHECKING:  # an `__getattr__` that a type checker sees would hide every misspelled name
    __version__: str
    """The version of the distribution, as it is installed."""
else:

    def __getattr__(name: str) -> str:
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version  # noqa: PLC0415 - 20 ms, and few programs ask

        return version("amplifier-kernel")
