"""A session's state: identity, namespace, context and phase.

Owns the session's events. The system calls act on the state; `registry` sets the phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from amplifier_core._events.bus import no_observers
from amplifier_core._protocol.errors import BadRequest
from amplifier_core._protocol.event import Event
from amplifier_core._protocol.ids import RequestTree, Span, ms_since

from .namespace import together

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.plan import Plan

    from .namespace import Namespace, PolicyHook
    from .runtime import Runtime

Phase = Literal["open", "ending", "ended"]


class SessionState(msgspec.Struct, eq=False):
    """One session's state. Its phase is open, then ending (its modules are closed), then ended."""

    runtime: Runtime
    session_id: str
    plan: Plan
    namespace: Namespace
    parent_id: str | None = None
    creator: SessionState | None = None  # the session whose module made this one by a system call
    maker: Module | None = None  # that module
    plan_bytes: int = 0  # of JSON, if a module made the session
    created: dict[str, SessionState] | None = None  # by its modules, and not ended yet
    phase: Phase = "open"
    fragments: dict[str, bytes] = {}
    fragments_shared: bool = False
    fragments_bytes: int = 0
    mounting: frozenset[str] = frozenset()
    _together: tuple[tuple[PolicyHook, ...], ...] = ((), (), ())  # the hooks that hold, its own, those above

    @property
    def policy(self) -> tuple[PolicyHook, ...]:
        """The policy hooks that hold here: the session's own, and those of the session in which a module made it.

        Another tuple tells what goes on that it has to ask those that are new, and ends decisions for the session.
        """
        own = self.namespace.policy
        if self.creator is None:
            return own
        above = self.creator.policy
        held, before, before_above = self._together
        if own is not before or above is not before_above:
            held = together(own, above)
            self._together = held, own, above
        return held

    def is_within(self, other: SessionState) -> bool:
        """Tell whether this is another session, or was made in it, or in one that was."""
        state: SessionState | None = self
        while state is not None and state is not other:
            state = state.creator
        return state is not None

    def root(self) -> SessionState:
        """Give the session of the embedder in which this one was made, perhaps through others; or this one."""
        return self if self.creator is None else self.creator.root()

    def descendants(self) -> Iterator[SessionState]:
        """Give the sessions that are open and were made in this one, or in one that was."""
        found = list((self.created or {}).values())
        while found:
            state = found.pop(0)
            yield state
            found += (state.created or {}).values()

    def check_call(self) -> None:
        """Raise ``BadRequest`` unless the caller is on the kernel's event loop, and the session open."""
        self.runtime.deadlines.check_loop()
        self.check_open()

    def check_open(self) -> None:
        """Raise ``BadRequest`` unless the session is open."""
        if self.phase != "open":
            raise BadRequest(f"session {self.session_id} has ended")

    def is_here(self) -> bool:
        """Tell whether the session is open, and belongs to this process."""
        return self.phase == "open" and not self.runtime.deadlines.forked

    def begin_end(self) -> bool:
        """Let the end of an open session begin, after what other threads have emitted. False: it has begun already."""
        self.runtime.inbox.make_all()
        begun, self.phase = self.phase == "open", "ending" if self.phase == "open" else self.phase
        return begun

    def own_namespace(self) -> Namespace:
        """Give a namespace to change: the session's own, or a copy of one that it shared until now."""
        self.namespace = self.namespace.unshared()
        return self.namespace

    def record(  # noqa: PLR0913 - the fields of the envelope
        self,
        event: str,
        span: Span | None = None,
        *,
        component: str = "kernel",
        module: str | None = None,
        status: str | None = None,
        began: float | None = None,
        ms: float | None = None,
        data: Any = None,
        error: KernelError | None = None,
        bounded: bool = False,
        observed: bool = True,
    ) -> None:
        """Record an event of this session: in the log and, unless ``observed`` is false, for its observers.

        ``began`` is the monotonic clock at the start of what the event tells, which ends now; ``ms`` is how long it
        took, if it has ended before. ``bounded`` is that of ``Bus.publish``.
        """
        runtime = self.runtime
        if began is not None:
            ms = ms_since(runtime.clock, began)
        ident, ts, seq = runtime.bus.stamp()
        of = span or _NO_SPAN
        made = Event(
            ident, ts, event, component, seq, module, status, ms, self.session_id, of.request_id, of.span_id,
            of.parent_span_id, data or _NO_DATA, error.body() if error else None,
        )  # fmt: skip
        runtime.bus.publish(made, self.namespace.observers_of if observed else no_observers, bounded=bounded)


_NO_SPAN: Any = Span(None, None, None, 0, RequestTree())  # type: ignore[arg-type]
_NO_DATA: dict[str, Any] = {}
