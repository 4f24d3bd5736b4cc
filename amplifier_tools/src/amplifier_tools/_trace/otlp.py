"""OTLP: the spans of a log for OpenTelemetry, sent to a collector or written as OTLP/JSON.

Owns what a person is told about it. `amplifier_sink_otel`, which need not be installed, owns the spans.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from amplifier_core import KernelError
from amplifier_tools._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amplifier_sink_otel.logs import LogSpans

    from .output import Output
    from .reader import Reader

__all__ = ["send", "write"]

_OPTIONS = {"header": "headers"}
"""The options of the sink whose names differ from those of the command."""


def send(reader: Reader, lines: Iterator[bytes], options: Mapping[str, Any]) -> None:
    """Send the spans of a log, as fast as the collector takes them. ``ClickException`` at the first that it refuses."""
    with _spans(reader, lines, options) as spans:
        spans.send()


def write(reader: Reader, lines: Iterator[bytes], options: Mapping[str, Any], output: Output) -> None:
    """Write the spans of a log, a message of OTLP/JSON a line."""
    with _spans(reader, lines, options) as spans:
        for message in spans.json():
            output.write(message)


@contextlib.contextmanager
def _spans(reader: Reader, lines: Iterator[bytes], given: Mapping[str, Any]) -> Iterator[LogSpans]:
    try:
        from amplifier_sink_otel.logs import LogSpans
    except ModuleNotFoundError:
        needs = "--to otlp: needs amplifier-sink-otel: pip install 'amplifier-tools[otlp]'"
        raise click.UsageError(needs) from None
    options = {_OPTIONS.get(name, name): value for name, value in given.items()}
    try:
        spans = LogSpans(lines, {"timeout": 60.0, **options})
    except KernelError as error:
        raise click.UsageError(printable(error.message.removeprefix("sinks: otel: "))) from None
    try:
        yield spans
    except KernelError as error:
        raise click.ClickException(printable(error.message)) from None
    reader.left_out = spans.left_out
