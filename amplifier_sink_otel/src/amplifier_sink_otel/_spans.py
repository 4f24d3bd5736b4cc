"""Spans: made of the events of a log, as they come.

Owns what happened in a span until its end comes, and how much of it is kept. The names are those of `_conventions`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from . import _conventions as words
from ._call import Call
from ._event import content_of, members_of, read_event, scalar_of, shortened, text_of
from ._mounts import Mounts
from ._resources import Resources

if TYPE_CHECKING:
    from ._event import Event, Scalar
    from ._options import Options

    Attributes = dict[str, Scalar | None]

_EVENTS_MAX = 128
"""Events of one span. The others are counted, as OTLP does."""

_HELD_MAX = 16 * 1024 * 1024
"""Bytes of the lines of events whose span has not ended. Beyond, what happened in the oldest is given up."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _Open(msgspec.Struct):
    """What happened in a span that has not ended."""

    events: BoundedList[SpanEvent]
    bytes: int = 0


class Spans:
    """The spans of a sink's kernel, or of all kernels of a log."""

    def __init__(self, options: Options) -> None:
        self.given_up: int = 0
        """Events that are in no span: theirs has not ended, or they are no events."""
        self._content = options.content
        self._mounts = Mounts()
        self._resources = Resources(options)
        self._scope = InstrumentationScope("amplifier-sink-otel", version("amplifier-sink-otel"), words.SCHEMA_URL)
        self._open: dict[int, _Open] = {}  # by the id of the span, in the order in which they were heard of
        self._held = 0

    def add(self, line: bytes) -> ReadableSpan | None:
        """Take the next line. Give the span that ends with it, if one does."""
        event = read_event(line)
        if event is None:
            self.given_up += 1
            return None
        self._resources.learn(event)
        self._mounts.learn(event)
        ids = event.ids
        if ids is None:
            return None
        if event.ends_span:
            return self._end(event, ids)
        self._keep(event, ids[1], len(line))
        return None

    def finish(self) -> None:
        """Give up what happened in the spans whose end has not come."""
        for span in list(self._open):
            self._give_up(span)

    def _keep(self, event: Event, span: int, size: int) -> None:
        """Keep an event until its span ends."""
        held = self._open.get(span)
        if held is None:
            held = self._open[span] = _Open(BoundedList(_EVENTS_MAX))
        if len(held.events) == _EVENTS_MAX:  # a bounded list would drop the oldest
            held.events.dropped += 1
            return
        held.events.append(self._told(event))
        held.bytes += size
        self._held += size
        while self._held > _HELD_MAX:
            self._give_up(next(iter(self._open)))

    def _give_up(self, span: int) -> None:
        held = self._taken(span)
        self.given_up += len(held.events) + held.events.dropped

    def _taken(self, span: int) -> _Open:
        held = self._open.pop(span, None) or _Open(BoundedList(_EVENTS_MAX))
        self._held -= held.bytes
        return held

    def _told(self, event: Event) -> SpanEvent:
        """Make an event that happened in a span."""
        data = members_of(event.data)
        told: Attributes = {
            f"amplifier.{name}": scalar_of(data.get(name)) for name in words.EVENT_FIELDS.get(event.event, ())
        }
        if event.component != "kernel":
            told[words.COMPONENT] = shortened(event.component)
        if self._content and event.data:
            told[words.DATA] = content_of(event.data)
        return SpanEvent(shortened(event.event), _present(told | _failure(event)), event.end)

    def _end(self, event: Event, ids: tuple[int, int, int]) -> ReadableSpan:
        trace, span, parent = ids
        name, kind, told = self._described(event)
        told |= {words.EVENT: event.event, words.CONVERSATION: event.session_id, **_failure(event)}
        error = text_of(members_of(event.error).get("message")) or None
        is_remote = "traceparent" in members_of(event.data)
        return ReadableSpan(
            shortened(name),
            SpanContext(trace, span, is_remote=False, trace_flags=_SAMPLED),
            SpanContext(trace, parent, is_remote=is_remote, trace_flags=_SAMPLED) if parent else None,
            self._resources.find(event),
            _present(told),
            self._taken(span).events,
            kind=kind,
            status=Status(StatusCode.ERROR, error) if event.failed else Status(),
            start_time=event.start,
            end_time=event.end,
            instrumentation_scope=self._scope,
        )

    def _described(self, event: Event) -> tuple[str, SpanKind, Attributes]:
        """Give the name, kind and attributes of a span."""
        if event.event == "module:invoke":
            call = Call(event, self._mounts.find(event), content=self._content)
            return call.span_name, call.operation.span_kind, call.attributes()
        data = members_of(event.data)
        if event.event == "mount:add":
            told: Attributes = {words.MODULE: event.module, words.KIND: text_of(data.get("kind"))}
            return f"mount {event.module or '?'}", SpanKind.INTERNAL, told
        name = text_of(data.get("name")) or event.event
        return name, SpanKind.INTERNAL, {words.NAME: name, words.DATA: self._content_of(data.get("data"))}

    def _content_of(self, value: msgspec.Raw | None) -> str | None:
        return content_of(value) if self._content and value else None


def _failure(event: Event) -> Attributes:
    """Give the type of the error, which is its code."""
    if not event.failed:
        return {}
    return {words.ERROR_TYPE: text_of(members_of(event.error).get("code")) or words.OTHER}


def _present(told: Attributes) -> dict[str, Scalar]:
    return {name: value for name, value in told.items() if value is not None and value != ""}
