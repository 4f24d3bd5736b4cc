"""Metrics: what spans tell, in sums and histograms, from the first span on.

Owns what is measured. The SDK owns the numbers, and how many series there are: some labels are what a module says.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from . import _conventions as words

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from ._event import Scalar


class Metrics:
    """The metrics of one kernel."""

    def __init__(self, resource: Resource) -> None:
        self._reader = InMemoryMetricReader()  # it reads when it is asked to, and has no thread
        provider = MeterProvider([self._reader], resource, AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        self._meter = provider.get_meter("amplifier-sink-otel", version("amplifier-sink-otel"), words.SCHEMA_URL)
        self._decisions = self._meter.create_counter(words.DECISIONS, "{decision}")
        self._dropped = self._meter.create_counter(words.DROPPED, "{event}")
        self._histograms: dict[str, Histogram] = {}

    def observe(self, span: ReadableSpan) -> None:
        """Measure a span, and what happened in it."""
        told = cast("dict[str, Scalar]", span.attributes)
        labels = {name: told[name] for name in words.LABELS if name in told}
        seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        operation = str(told.get(words.OPERATION) or told[words.EVENT])
        self._histogram(words.DURATIONS[operation], "s", words.SECONDS).record(seconds, labels)
        for name, kind in ((words.INPUT_TOKENS, "input"), (words.OUTPUT_TOKENS, "output")):
            if isinstance(count := told.get(name), int):
                tokens = self._histogram(words.TOKEN_USAGE, "{token}", words.TOKENS)
                tokens.record(count, {**labels, words.TOKEN_TYPE: kind})
        if words.MCP_METHOD in told:
            named = {name: told[name] for name in (words.MCP_METHOD, words.TOOL_NAME, words.ERROR_TYPE) if name in told}
            self._histogram(words.MCP_DURATION, "s", words.SECONDS).record(seconds, named)
        for event in span.events:
            if event.name == "policy:decision":
                self._decisions.add(1, {words.DECISION: (event.attributes or {}).get(words.DECISION, words.OTHER)})

    def count_dropped(self, more: int) -> None:
        """Count events that are not at the collector."""
        if more:
            self._dropped.add(more)

    def read(self) -> MetricsData | None:
        """Give all of them, as they are now; ``None``: ``OTEL_SDK_DISABLED`` is set."""
        return self._reader.get_metrics_data()

    def _histogram(self, name: str, unit: str, bounds: tuple[float, ...]) -> Histogram:
        if name not in self._histograms:
            made = self._meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=bounds)
            self._histograms[name] = made
        return self._histograms[name]
