"""The bus: gives each event its number, has it written, and offers it to the observers.

Owns ``seq`` and the sinks. It decides nothing: policy is asked elsewhere, observers are only
told, and neither a slow nor a failing one can delay or fail the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import convert, structs

from amplifier_core._protocol.errors import KernelError, one_line
from amplifier_core._protocol.event import Event, event_id
from amplifier_core._protocol.json import encode_checked, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amplifier_core._protocol.event import Limit
    from amplifier_core._protocol.ids import Clock, Ids, Span
    from amplifier_core.hookspecs import Sink

    from .observer import Observer

_NOTHING: dict[str, Any] = {}


def nobody(event: str) -> Sequence[Observer]:  # noqa: ARG001
    """List nobody: an event that is in the log alone."""
    return ()


class Bus:
    """One kernel's events. Not safe to call from other threads than the loop's."""

    def __init__(self, clock: Clock, ids: Ids, sinks: Sequence[Sink], limit: Limit) -> None:
        self._clock = clock
        self._tag = ids.hex16()[:8]
        self._sinks = tuple(sinks)
        self._lost: dict[int, int] = {}  # by identity: a sink need not be hashable
        self._seq = 0
        self.limit = limit
        self.closed = False

    def emit(  # noqa: PLR0913, PLR0917 - the fields of the envelope, by place: names cost every call of a module 0.4 µs
        self,
        event: str,
        told_of: Callable[[str], Sequence[Observer]] = nobody,
        component: str = "kernel",
        session_id: str | None = None,
        span: Span | None = None,
        module: str | None = None,
        status: str | None = None,
        duration_ms: float | None = None,
        data: Any = None,
        error: KernelError | None = None,
        bounded: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Number, write and offer one event to those who are told of its name.

        ``data`` is JSON; ``bounded`` says that its size has been seen to.
        """
        self._seq = seq = self._seq + 1
        ts = self._clock.time()
        request_id = span_id = parent_span_id = None
        if span is not None:
            request_id, span_id, parent_span_id = span.request_id, span.span_id, span.parent_span_id
        told = Event(
            event_id(ts, seq, self._tag), ts, event, component, seq, module, status, duration_ms, session_id,
            request_id, span_id, parent_span_id, data or _NOTHING, error.body() if error else None,
        )  # fmt: skip
        try:
            line = encode_checked(told)
        except (TypeError, ValueError, RecursionError):  # foreign text in an error or in a transport's report
            told = convert(scrub(structs.asdict(told)), Event)
            line = encode_checked(told)
        if len(line) > self.limit.size:
            line = self._shortened(told, bounded=bounded)
        line += b"\n"
        failed: tuple[tuple[Sink, Exception], ...] = ()
        for sink in self._sinks:
            try:
                sink.write(line)
            except Exception as failure:  # noqa: BLE001 - a sink is foreign code, and the run goes on
                failed += ((sink, failure),)
        for observer in told_of(event):
            observer.offer(event, line)
        for sink, reason in failed:
            self._sink_failed(sink, reason, told_of)

    def request(self, event: str, session_id: str, span: Span, data: dict[str, Any]) -> Event:
        """Make an envelope that is asked about rather than logged, such as ``policy:request``: it has no ``seq``."""
        ts = self._clock.time()
        return Event(
            event_id(ts, self._seq, self._tag + span.span_id), ts, event, "kernel", None, None, None, None,
            session_id, span.request_id, span.span_id, span.parent_span_id, data,
        )  # fmt: skip

    def lost(self) -> int:
        """Count the events that a sink did not take."""
        return sum(self._lost.values())

    def close(self) -> list[str]:
        """Close the sinks, and say which failed at it; nothing can be emitted afterwards."""
        self.closed = True
        sinks, self._sinks = self._sinks, ()
        failures = []
        for sink in sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - foreign code, and the others have to be closed
                failures.append(f"sink {type(sink).__name__}: {one_line(error)}")
        return failures

    def _shortened(self, event: Event, *, bounded: bool) -> bytes:
        """Encode an event with what is too large left out."""
        if not bounded and isinstance(event.data, Mapping):
            event = structs.replace(event, data=self.limit.apply(event.data))
        line = encode_checked(event)
        if event.error and len(line) > self.limit.size:
            line = encode_checked(structs.replace(event, error=self.limit.cut(event.error)))
        return line

    def _sink_failed(self, sink: Sink, failure: Exception, told_of: Callable[[str], Sequence[Observer]]) -> None:
        """Count what a sink lost; the first time, tell the other sinks and the observers of who emitted."""
        first = id(sink) not in self._lost
        self._lost[id(sink)] = self._lost.get(id(sink), 0) + 1
        if not first:
            return
        name = type(sink).__name__
        others = [other for other in self._sinks if id(other) not in self._lost]
        sinks, self._sinks = self._sinks, tuple(others)
        error = KernelError(f"sink {name}: {one_line(failure)}")
        self.emit("sink:error", told_of=told_of, data={"sink": name}, error=error)
        self._sinks = sinks
