"""The exporter: hands spans and metrics to the SDK's own, and counts what the collector did not take.

Owns what is known of a collector that takes nothing. It keeps the SDK from logging that for each message.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace.export import SpanExportResult

from ._channel import Channel
from ._event import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from ._options import Options

_log = logging.getLogger("amplifier_sink_otel")
_UNKNOWN = (404, 405, 501)  # statuses: the collector takes nothing at that path


class Exporter:
    """What goes to the collector, from the thread that makes this."""

    def __init__(self, options: Options, closing: threading.Event) -> None:
        self.lost: int = 0
        """Spans that the collector did not take."""
        self.problem: str = ""
        """Why the last of what was not taken was not; "": all was."""
        self._where = options.where
        self._channel = Channel(options, closing)
        compression = {"none": Compression.NoCompression, "gzip": Compression.Gzip}.get(
            options.compression or ("" if options.environment else "none")
        )
        given = options.ca, None, None, options.headers, options.timeout, compression, self._channel.session()
        self._spans = OTLPSpanExporter(options.url("/v1/traces"), *given)
        self._metrics = OTLPMetricExporter(options.url("/v1/metrics"), *given)
        self._takes_metrics = True
        self._is_stopped = False
        self._quiet = _Quiet()

    def send_spans(self, spans: Sequence[ReadableSpan]) -> None:
        """Send spans, for at most ``timeout`` seconds. Those that are not taken are counted."""
        if self._spans.export(spans) is SpanExportResult.SUCCESS:
            self._count_rejected()
        else:
            self.lost += len(spans)
            self.problem = self._channel.problem or "it cannot be written"

    def send_metrics(self, metrics: MetricsData | None) -> None:
        """Send metrics. Those that are not taken come again with the next ones, since they are sums.

        A viewer of traces takes none: it is asked once.
        """
        if metrics is None or not self._takes_metrics:
            return
        if self._metrics.export(metrics) is MetricExportResult.SUCCESS:
            return
        if self._channel.status in _UNKNOWN:
            self._takes_metrics = False
            _log.info("%s takes no metrics: %s", self._where, self._channel.problem)
        else:
            self.problem = self._channel.problem or "it cannot be written"

    def stop(self) -> None:
        """End what is being sent, from another thread. Nothing more is sent. Idempotent."""
        self._channel.stop()
        if not self._is_stopped:  # the SDK would complain
            self._is_stopped = True
            self._spans.shutdown()  # type: ignore[no-untyped-call]
            self._metrics.shutdown()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()
        self._quiet.end()

    def after_fork(self) -> None:
        """Close the connection in the child, where the thread does not run."""
        self._channel.after_fork()

    def _count_rejected(self) -> None:
        try:
            partial = ExportTraceServiceResponse.FromString(self._channel.answer).partial_success
        except DecodeError:  # it is the collector's own affair what it says besides 200
            return
        if partial.rejected_spans > 0:
            self.lost += partial.rejected_spans
            self.problem = f"{partial.rejected_spans} rejected: {shortened(partial.error_message)!r}"


class _Quiet(logging.Filter):
    """Keeps back what the SDK's exporters log in this thread. In others they are somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._loggers = [logging.getLogger(each.__module__) for each in (OTLPSpanExporter, OTLPMetricExporter)]
        for each in self._loggers:
            each.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread

    def end(self) -> None:
        for each in self._loggers:
            each.removeFilter(self)
