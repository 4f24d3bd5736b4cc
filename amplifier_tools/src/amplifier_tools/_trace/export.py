"""The command ``trace export``: a log in the form of another program.

Owns the options. `perfetto` owns the form.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
from rich.console import Console

from amplifier_tools._spans import Spans

from .perfetto import TraceEvents
from .progress import watched
from .source import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reader import Reader

__all__ = ["export"]


@click.command()
@click.argument("path", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["perfetto"]), required=True, help="The form: Chrome trace events, as JSON.")
@click.option("--output", "-o", type=click.File("wb"), default="-", help="The file; else stdout.", metavar="FILE")
def export(path: Path, output: IO[bytes], **_: str) -> None:
    """Write the spans of LOG as a file that https://ui.perfetto.dev and chrome://tracing open.

    Each kernel is a process. Spans at the same time are on lanes of their own. Arguments and results are shortened, as
    they are in "trace show". Rotated files (LOG.1, LOG.2 …) are read first. Memory is bounded whatever the log is.
    """
    with opened(path) as reader:
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
