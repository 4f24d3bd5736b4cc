"""The bus: gives each event its number, writes it to the sinks, and offers it to the observers.

Owns ``seq`` and the sinks. It decides nothing: policy is asked elsewhere, and no observer can delay or fail the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import convert, structs

from amplifier_core._protocol.errors import Internal, KernelError, causes, one_line
from amplifier_core._protocol.event import LEAST_SIZE, TAILS, Event, event_id
from amplifier_core._protocol.json import encode_checked, printable_json, scrub
from amplifier_core.hookspecs._fork import FORKED

from .warnings import Warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amplifier_core._protocol.event import SizeLimit
    from amplifier_core._protocol.ids import Clock, Ids, Span
    from amplifier_core.hookspecs import Sink

    from .observer import Observer
    from .redaction import Redaction

CLOSED = "the kernel is closed"
NOT_AWAITED = "is async, and the kernel does not await it: make it a plain function, which may feed a queue"
"""What is wrong with a method of a sink."""


def no_observers(_: str) -> Sequence[Observer]:
    """Return no observers: only the sinks get the event."""
    return ()


def refuse_coroutine(given: object, method: str) -> None:
    """Raise ``TypeError`` for what an async method of a sink gave: it would never run."""
    if asyncio.iscoroutine(given):
        given.close()
        raise TypeError(f"{method} {NOT_AWAITED}")


class Bus:
    """The events of one kernel. Call it from the thread of the event loop alone."""

    def __init__(
        self, clock: Clock, ids: Ids, sinks: Sequence[Sink], limit: SizeLimit, redaction: Redaction | None = None
    ) -> None:
        self._clock = clock
        self.tag: str = ids.hex16()[:8]
        """The end of each event's id: it tells kernels apart."""
        self._sinks = tuple(sinks)
        self._opened = len(self._sinks)
        self._lost: dict[int, int] = {}  # by identity: a sink need not be hashable
        self._faults: list[tuple[str, Exception]] = []  # the first one of each sink that failed
        self._ending = False
        self._told = True  # each of them, by `sink:error`
        self._redaction = redaction
        self.warn: Warnings = Warnings(quoting=redaction is None)
        self._seq = 0
        self.limit = limit
        self._heavy = 8 * max(limit.size, LEAST_SIZE)  # bytes of an event that is cut before its redaction
        self.closed: str = ""
        """Why no event is taken any more; empty while the bus is open."""

    def stamp(self) -> tuple[str, float, int]:
        """Give the id, time and number of the next event, which has to be published before any other."""
        self._seq = seq = self._seq + 1
        ts = self._clock.time()
        return event_id(ts, seq, self.tag), ts, seq

    def publish(  # noqa: C901 - further calls would cost each event more than what they do
        self, event: Event, observers_of: Callable[[str], Sequence[Observer]] = no_observers, *, bounded: bool = False
    ) -> None:
        """Write an event that has its stamp to every sink, and offer it to the observers of its name.

        ``bounded``: no value in its ``data`` is larger than the limit.
        """
        try:
            line = encode_checked(event)
        except (TypeError, ValueError, RecursionError):  # foreign text in an error or in a transport's report
            event = convert(scrub(structs.asdict(event)), Event)
            line = encode_checked(event)
        faults: Sequence[str] = ()
        if self._redaction is not None:
            if len(line) > self._heavy:
                event = self._lightened(event)
                line = encode_checked(event)
            event, faults = self._redaction.apply(event, line)
            bounded = False
            line = encode_checked(event)
        if len(line) > self.limit.size:
            line = self._shortened(event, bounded=bounded)
        if not line.isascii() or line.find(b"\x7f") >= 0:  # `in` takes seven times as long: it raises an error inside
            line = printable_json(line)
        line += b"\n"
        failed: tuple[tuple[Sink, Exception], ...] = ()
        for sink in self._sinks:
            try:
                given: object = sink.write(line)  # type: ignore[func-returns-value]  # a file's gives a number
                if given is not None:
                    refuse_coroutine(given, "write")
            except Exception as failure:  # a sink is foreign code, and the run goes on
                failed += ((sink, failure),)
        for observer in observers_of(event.event):
            observer.offer(event.event, line)
        for fault in faults:  # now: whoever hears of it may emit an event, which comes after this one
            self.warn("redact", fault)
        for sink, reason in failed:
            self._sink_failed(sink, reason, observers_of)

    def begin(self, data: dict[str, Any]) -> None:
        """Record ``kernel:start``, the first event in each sink."""
        self._record("kernel:start", data)

    def end(self, status: str, ms: float) -> None:
        """Record ``kernel:end``, the last event in each sink: that one fails now is told by ``loss`` alone."""
        self._ending, lost = True, self.lost()
        self._record("kernel:end", {"lost": lost} if lost else {}, "error" if lost else status, ms)

    def _record(self, event: str, data: dict[str, Any], status: str | None = None, ms: float | None = None) -> None:
        """Record an event of the kernel itself. It is of no session, so no observer hears of it."""
        ident, ts, seq = self.stamp()
        self.publish(Event(ident, ts, event, "kernel", seq, status=status, duration_ms=ms, data=data))

    def after_fork(self) -> None:
        """Take no event any more in a process that was forked from the kernel's."""
        self.closed = FORKED

    def request(self, event: str, session_id: str, span: Span, data: dict[str, Any]) -> Event:
        """Make the envelope of a question to hooks, such as ``policy:request``. It is not logged and has no ``seq``."""
        ts = self._clock.time()
        return Event(
            event_id(ts, self._seq, self.tag + span.span_id), ts, event, "kernel", None, None, None, None,
            session_id, span.request_id, span.span_id, span.parent_span_id, data,
        )  # fmt: skip

    def lost(self) -> int:
        """Count the events that sinks failed to write: the sum over the sinks."""
        return sum(self._lost.values())

    def loss(self) -> tuple[KernelError, Exception] | None:
        """Make the error for the events that sinks failed to write, and give its cause; ``None`` if there are none."""
        if not (lost := self.lost()):
            return None
        reasons = "; ".join(f"{name}: {one_line(fault)}" for name, fault in self._faults)
        told = self._told and len(self._lost) < self._opened  # by `sink:error`, in the other sinks
        why = "; sink:error has the reason" if told else f": {reasons}"
        cause = self._faults[0][1]
        details = {"lost": lost, "causes": causes(cause)}
        return Internal(f"the kernel's sinks lost {lost} events{why}", details=details), cause

    def close(self) -> list[str]:
        """Close the sinks, and list their failures, a line each. Nothing is written afterwards."""
        self.closed = CLOSED
        sinks, self._sinks = self._sinks, ()
        failures = []
        for sink in sinks:
            try:
                refuse_coroutine(sink.close(), "close")  # type: ignore[func-returns-value]
            except Exception as error:  # foreign code, and the other sinks have to be closed
                failures.append(f"sink {type(sink).__name__}: {one_line(error)}")
        return failures

    def _lightened(self, event: Event) -> Event:
        """Leave out values that are too large, each as a whole, so that no module decides how long a redaction takes.

        Text of stderr stays until it is redacted: at a cut, half a secret would be left.
        """
        data = self.limit.leave_out(event.data, TAILS) if isinstance(event.data, Mapping) else event.data
        error = event.error
        if error and isinstance(error.get("details"), Mapping):
            error = {**error, "details": self.limit.leave_out(error["details"], TAILS)}
        return structs.replace(event, data=data, error=error)

    def _shortened(self, event: Event, *, bounded: bool) -> bytes:
        """Encode an event without the values that are too large."""
        if not bounded and isinstance(event.data, Mapping):
            event = structs.replace(event, data=self.limit.apply(event.data, TAILS))
        line = encode_checked(event)
        if event.error and len(line) > self.limit.size:
            line = encode_checked(structs.replace(event, error=self.limit.cut(event.error)))
        return line

    def _sink_failed(self, sink: Sink, failure: Exception, observers_of: Callable[[str], Sequence[Observer]]) -> None:
        """Count an event that a sink lost. The first time, report it to the other sinks and the event's observers."""
        first = id(sink) not in self._lost
        self._lost[id(sink)] = self._lost.get(id(sink), 0) + 1
        if not first:
            return
        name = type(sink).__name__
        self._faults.append((f"sink {name}", failure))
        self.warn(f"sink {name}", f"sink {name} lost an event, and others may follow: {one_line(failure)}")
        if self._ending:
            self._told = False
            return
        sinks, self._sinks = self._sinks, tuple(other for other in self._sinks if id(other) not in self._lost)
        error = KernelError(f"sink {name}: {one_line(failure)}")
        ident, ts, seq = self.stamp()
        lost = Event(ident, ts, "sink:error", "kernel", seq, data={"sink": name}, error=error.body())
        self.publish(lost, observers_of)
        self._sinks = sinks
