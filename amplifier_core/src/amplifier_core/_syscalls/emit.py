"""Emitting: the events that an embedder or a module puts into the log, under which names, and how many at once.

Owns the check of names and of data. `SessionState.record` takes what passes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._protocol.errors import BadRequest, Cancelled, Forbidden, short
from amplifier_core._protocol.event import KERNEL_EVENTS, NAME_MAX, checked_data, is_event_name
from amplifier_core._protocol.json import encode_checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState


class Emitter(msgspec.Struct, frozen=True):
    """Emits events in the name of a module, or of the embedder (``kernel``)."""

    state: SessionState
    component: str = "kernel"
    span: Span | None = None
    answering: bool = False
    """Whether the events are an observer's answer: no observer hears them, and the session may be ending."""

    def emit(self, event: str, data: object) -> None:
        """Emit one event. Members of ``data`` that are not JSON are left out, and named in the event's ``error``.

        Raises ``BadRequest`` or ``Forbidden`` for a name that the emitter may not use.
        """
        self._check(event)
        shown, fault = checked_data(data, self.state.runtime.bus.limit, decoded=self.component != "kernel")
        self._record(event, shown, fault)

    def _check(self, event: Any) -> None:
        if not is_event_name(event):
            raise BadRequest(f"event: expected namespace:verb, got {short(event)}")
        if event in KERNEL_EVENTS:
            raise Forbidden(f"event: {event} is the kernel's own")
        if not self.answering:
            self.state.check_open()

    def emit_or_drop(self, event: Any, data: object) -> None:
        """Emit one event. Record ``events:dropped`` with the error for one that is refused: no caller can be told."""
        try:
            self.emit(event, data)
        except (BadRequest, Forbidden) as error:
            self._drop(event, error)

    def prepare(self, event: Any, data: object) -> Callable[[], None]:
        """Look at an event's data now, in any thread, and give what records the event later, on the loop."""
        shown, fault = checked_data(data, self.state.runtime.bus.limit)
        kept = None if shown is None else msgspec.Raw(encode_checked(shown))
        return partial(self._emit_prepared, event, kept, fault)

    def _emit_prepared(self, event: Any, data: msgspec.Raw | None, fault: str) -> None:
        try:
            self._check(event)
        except (BadRequest, Forbidden) as error:
            self._drop(event, error)
        else:
            self._record(event, data, fault)

    def _drop(self, event: Any, error: KernelError) -> None:
        name = event[:NAME_MAX] if isinstance(event, str) else short(event)
        self._record_dropped({"event": name, "count": 1}, error)

    async def emit_all(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Emit the events of one reply, and let other tasks run in between.

        Those beyond a thousand are counted in one ``events:dropped``, and so are the rest if this is cancelled.
        """
        emitted = 0
        error: KernelError = BadRequest(f"events: expected at most {_EVENTS_MAX} in one reply, got {len(events)}")
        try:
            for event in events[:_EVENTS_MAX]:
                self.emit_or_drop(event.get("event"), event.get("data"))
                emitted += 1
                if emitted % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            error = Cancelled("events: the invocation ended before they were emitted")
            raise
        finally:
            if more := len(events) - emitted:
                self._record_dropped({"count": more}, error)

    def _record(self, event: str, data: Any, fault: str) -> None:
        self.state.record(
            event,
            self.span,
            component=self.component,
            status="error" if fault else None,
            data=data,
            error=BadRequest(fault) if fault else None,
            bounded=True,
            observed=not self.answering,
        )

    def _record_dropped(self, data: dict[str, Any], error: KernelError) -> None:
        who, observed = self.component, not self.answering
        named = "" if who == "kernel" else f"{who}: "
        text = f"{named}an event was dropped"
        self.state.runtime.bus.warn(f"dropped {named}", f"{text}: {error.message}", text)
        self.state.record(
            "events:dropped", self.span, component=who, status="error", data=data, error=error, observed=observed
        )


_EVENTS_MAX = 1000  # more would keep the event loop from other tasks, and fill the log
_AT_ONCE = 8  # events between two turns of the loop
