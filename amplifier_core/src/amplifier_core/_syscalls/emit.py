"""Emitting: what an embedder or a module may put into the log, and what becomes of the rest.

Owns who may use which name. The bus takes what passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core._events.bus import nobody
from amplifier_core._protocol.errors import BadRequest, Forbidden, short
from amplifier_core._protocol.event import KERNEL_EVENTS, checked_data, is_event_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState


def emit(
    state: SessionState,
    event: str,
    data: object,
    component: str = "kernel",
    span: Span | None = None,
    *,
    answer: bool = False,
) -> None:
    """Emit one event. Raises ``BadRequest`` or ``Forbidden`` for a name; what of ``data`` is not JSON is left out.

    What an observer has to say (``answer``) is told to no observer, and comes while its session ends too.
    """
    if not is_event_name(event):
        raise BadRequest(f"event: expected namespace:verb, got {short(event)}")
    if event in KERNEL_EVENTS:
        raise Forbidden(f"event: {event} is the kernel's own")
    if not answer:
        state.check_open()
    shown, fault = checked_data(data, state.runtime.bus.limit)
    error = BadRequest(fault) if fault else None
    status = "error" if error else None
    state.runtime.bus.emit(
        event,
        told_of=nobody if answer else state.namespace.told,
        component=component,
        session_id=state.session_id,
        span=span,
        status=status,
        data=shown,
        error=error,
        bounded=True,
    )


def emit_or_drop(
    state: SessionState,
    event: object,
    data: object,
    component: str = "kernel",
    span: Span | None = None,
    *,
    answer: bool = False,
) -> None:
    """Emit one event, or record that it was refused and why, where nobody can be told by an error."""
    try:
        emit(state, event, data, component, span, answer=answer)  # type: ignore[arg-type]  # what is no text is refused in there
    except (BadRequest, Forbidden) as error:
        dropped = {"event": event[:128] if isinstance(event, str) else short(event), "count": 1}
        _drop(state, dropped, error, component, span, answer=answer)


def emit_all(
    state: SessionState,
    events: Sequence[Mapping[str, Any]],
    component: str,
    span: Span | None = None,
    *,
    answer: bool = False,
) -> None:
    """Emit the events of one reply in its module's name; those beyond a thousand are counted in one event."""
    for event in events[:_EVENTS_MAX]:
        emit_or_drop(state, event.get("event"), event.get("data"), component, span, answer=answer)
    if (more := len(events) - _EVENTS_MAX) > 0:
        error = BadRequest(f"events: expected at most {_EVENTS_MAX} in one reply, got {len(events)}")
        _drop(state, {"count": more}, error, component, span, answer=answer)


_EVENTS_MAX = 1000  # more would keep the event loop from everybody else, and fill the log


def _drop(
    state: SessionState, data: dict[str, Any], error: KernelError, component: str, span: Span | None, *, answer: bool
) -> None:
    state.emit("events:dropped", span, component=component, status="error", data=data, error=error, told=not answer)
