"""The command ``trace export``: a log in the form of another program.

Owns the options. `perfetto` and `otlp` own the forms.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from amplifier_tools._spans import Spans

from . import otlp
from .output import OUTPUT, Output
from .perfetto import TraceEvents
from .progress import watched
from .source import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reader import Reader

__all__ = ["export"]


def _headers(_: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read headers, which are not shown: one may be a key."""
    pairs = [each.partition("=") for each in given]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("expected NAME=VALUE", param=parameter)
    return {name: value for name, _, value in pairs}


@click.command()
@click.argument("path", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["otlp", "perfetto"]), required=True, help="For OpenTelemetry, or as JSON.")
@click.option("--output", "-o", type=OUTPUT, help="The file; else stdout.", metavar="FILE")
@click.option("--endpoint", help="With otlp: send it to this collector.", metavar="URL")
@click.option("--header", multiple=True, callback=_headers, help="With --endpoint: a key.", metavar="NAME=VALUE")
@click.option("--timeout", type=float, help="With --endpoint: for a message (60).", metavar="SECONDS")
@click.option("--content", is_flag=True, help="With otlp: arguments, results and data of events too.")
def export(path: Path, to: str, output: Path | None, endpoint: str | None, **options: Any) -> None:
    """Give the spans of LOG to another program.

    With "--to perfetto" it is a file of Chrome trace events, which https://ui.perfetto.dev and chrome://tracing open.
    Each kernel is a process. Spans at the same time are on lanes of their own. Arguments and results are shortened, as
    they are in "trace show".

    With "--to otlp" it goes to a collector or viewer of OpenTelemetry by OTLP over HTTP, or it is a file of OTLP/JSON,
    a message a line, as a collector's otlpjsonfile receiver reads it. Nothing is dropped. If the collector refuses a
    message, or does not take it within the timeout, the exit status is 1.

    Rotated files (LOG.1, LOG.2 …) are read first. Memory is bounded whatever the log is.
    """
    given = {name: value for name, value in {"endpoint": endpoint, **options}.items() if value}
    _check(to, given, output)
    with opened(path) as reader:
        if endpoint:
            otlp.send(reader, _lines(reader), given)
        else:
            file = Output(output, reader.log)
            if to == "otlp":
                otlp.write(reader, _lines(reader), given, file)
            else:
                _write_trace_events(reader, file)
            file.finish()


def _check(to: str, given: dict[str, Any], output: Path | None) -> None:
    """Refuse options that do not go together."""
    if to != "otlp" and given:
        raise click.UsageError(f"--{next(iter(given))}: goes with --to otlp alone")
    if alone := [name for name in ("header", "timeout") if name in given and "endpoint" not in given]:
        raise click.UsageError(f"--{alone[0]}: goes with --endpoint alone")
    if output and "endpoint" in given:
        raise click.UsageError("--endpoint and --output: expected one of them")


def _lines(reader: Reader) -> Iterator[bytes]:
    for _ in watched(reader, Console(stderr=True)):
        yield reader.line


def _write_trace_events(reader: Reader, output: Output) -> None:
    output.write(b'{"displayTimeUnit":"ms","traceEvents":[')
    between = b"\n"
    for event in _events(reader):
        output.write(between + event)
        between = b",\n"
    output.write(b"\n]}\n")


def _events(reader: Reader) -> Iterator[bytes]:
    events, spans = TraceEvents(), Spans(below_max=math.inf)
    for entry in watched(reader, Console(stderr=True)):
        for node in spans.add(entry):
            yield from events.of(node)
    for node in spans.finish():
        yield from events.of(node)
