"""What a session is underneath its system calls: identity, namespace, context and whether it is still open.

Owns the session's life. Whatever acts for a session is given this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from amplifier_core._events.bus import nobody
from amplifier_core._protocol.errors import BadRequest

if TYPE_CHECKING:
    from typing import Any

    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.ids import Span
    from amplifier_core._protocol.plan import Plan

    from .namespace import Namespace
    from .runtime import Runtime

Life = Literal["open", "ending", "ended"]


class SessionState:
    """One session's state. Lives: open, then ending (its modules are closed), then ended; never back."""

    __slots__ = (
        "fragments",
        "fragments_shared",
        "life",
        "made",
        "maker_id",
        "mounting",
        "namespace",
        "parent_id",
        "plan",
        "runtime",
        "session_id",
    )

    def __init__(self, runtime: Runtime, session_id: str, plan: Plan, namespace: Namespace) -> None:
        self.runtime = runtime
        self.session_id = session_id
        self.plan = plan
        self.parent_id: str | None = None
        self.maker_id: str | None = None  # the session whose module made this one by a system call
        self.made: dict[str, SessionState] | None = None  # by its modules' system calls, and not ended yet
        self.namespace = namespace
        self.life: Life = "open"
        self.fragments: dict[str, bytes] = {}
        self.fragments_shared = False
        self.mounting: frozenset[str] = frozenset()

    def check_open(self) -> None:
        """Raise ``BadRequest`` unless the session is open."""
        if self.life != "open":
            raise BadRequest(f"session {self.session_id} has ended")

    def emit(  # noqa: PLR0913 - the fields of the envelope that differ
        self,
        event: str,
        span: Span | None = None,
        *,
        component: str = "kernel",
        module: str | None = None,
        status: str | None = None,
        duration_ms: float | None = None,
        data: Any = None,
        error: KernelError | None = None,
        bounded: bool = False,
        told: bool = True,
    ) -> None:
        """Emit one of the kernel's own events in this session; its observers are told, unless ``told`` is false."""
        self.runtime.bus.emit(
            event,
            told_of=self.namespace.told if told else nobody,
            component=component,
            session_id=self.session_id,
            span=span,
            module=module,
            status=status,
            duration_ms=duration_ms,
            data=data,
            error=error,
            bounded=bounded,
        )
