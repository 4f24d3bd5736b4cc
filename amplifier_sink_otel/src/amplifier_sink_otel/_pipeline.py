"""The pipeline: lines become spans, spans become messages and metrics.

Owns what is sent when, and what a person is told. All of it is for one thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ._batch import Batch
from ._exporter import Exporter
from ._metrics import Metrics
from ._spans import Spans

if TYPE_CHECKING:
    import threading

    from ._options import Options

_log = logging.getLogger("amplifier_sink_otel")


class Pipeline:
    """Takes the lines of one kernel."""

    def __init__(self, options: Options, closing: threading.Event) -> None:
        self.exporter: Exporter = Exporter(options, closing)
        self._where = options.where
        self._spans = Spans(options)
        self._metrics: Metrics | None = None
        self._batch = Batch()
        self._is_changed = self._has_told = False
        self._counted = 0

    @property
    def lost(self) -> int:
        """Spans that the collector did not take, and events that are in no span."""
        return self._spans.given_up + self.exporter.lost

    @property
    def waiting(self) -> int:
        """Spans that are not sent yet."""
        return len(self._batch.spans)

    def add(self, line: bytes) -> None:
        """Take the next line. If that makes a message, send it."""
        span = self._spans.add(line)
        if span is None:
            return
        if self._metrics is None:
            self._metrics = Metrics(span.resource)
        self._metrics.observe(span)
        self._is_changed = True
        if self._batch.add(span, len(line)):
            self._send_spans()

    def send(self, *, dropped: int) -> None:
        """Send what there is. So many lines were dropped before they came here."""
        if self.waiting:
            self._send_spans()
        more = dropped + self.lost - self._counted
        if more:
            self._tell(f"{more} events were dropped")
        if self._metrics is not None and (more or self._is_changed):
            self._counted += more
            self._is_changed = False
            self._metrics.count_dropped(more)
            self.exporter.send_metrics(self._metrics.read())
            self._tell(self.exporter.problem)

    def finish(self, *, dropped: int) -> None:
        """Send the rest, and end the connection."""
        self._spans.finish()
        self.send(dropped=dropped)
        self.exporter.close()

    def _send_spans(self) -> None:
        self.exporter.send_spans(self._batch.spans)
        self._batch = Batch()
        self._tell(self.exporter.problem)

    def _tell(self, problem: str) -> None:
        """Say once, by logging, that something is lost. All that is lost is counted."""
        if problem and not self._has_told:
            self._has_told = True
            _log.warning("events may be missing at %s: %s", self._where, problem)
