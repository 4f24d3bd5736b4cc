"""Whole logs as spans: sent to a collector, or written as OTLP/JSON. Nothing is dropped: what reads the log waits.

Owns what a program that has a log calls. A kernel's events are sent as they happen by the sink.
"""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from amplifier_core import Unreachable

from ._batch import Batch
from ._exporter import Exporter
from ._options import read_options
from ._spans import Spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["LogSpans"]

_IDS = ("traceId", "spanId", "parentSpanId")


class LogSpans:
    """The spans of one log, whose lines are read once. ``options`` are those of the sink.

    Raises ``BadRequest`` for an option that does not fit.
    """

    def __init__(self, lines: Iterable[bytes], options: Mapping[str, Any]) -> None:
        self._lines = lines
        self._options = read_options(options)
        self._spans = Spans(self._options)

    @property
    def left_out(self) -> int:
        """Events that are in no span, as the end of theirs is not in the log, and lines that are no events."""
        return self._spans.given_up

    def send(self) -> None:
        """Send them, message after message. ``Unreachable`` at the first that the collector does not take."""
        exporter = Exporter(self._options, threading.Event())
        try:
            for batch in self._batches():
                exporter.send_spans(batch)
                if exporter.problem:
                    raise Unreachable(f"{self._options.where}: {exporter.problem}")
        finally:
            exporter.close()

    def json(self) -> Iterator[bytes]:
        """Give them as OTLP/JSON: a message a line, with its end, as the ``otlpjsonfile`` receiver reads it."""
        for batch in self._batches():
            message = MessageToDict(encode_spans(batch), use_integers_for_enums=True)
            for resource in message["resourceSpans"]:
                for span in resource["scopeSpans"][0]["spans"]:
                    span |= {name: base64.b64decode(span[name]).hex() for name in _IDS if name in span}
            yield msgspec.json.encode(message) + b"\n"

    def _batches(self) -> Iterator[list[ReadableSpan]]:
        batch = Batch()
        for line in self._lines:
            span = self._spans.add(line)
            if span is not None and batch.add(span, len(line)):
                yield batch.spans
                batch = Batch()
        self._spans.finish()
        if batch.spans:
            yield batch.spans
