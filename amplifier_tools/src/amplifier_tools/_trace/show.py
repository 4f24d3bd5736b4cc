"""The command ``trace show``: the trees of a log on a terminal, filtered, and as they grow.

Owns the options. `filter` owns the filter, `_spans` the trees, `_tree` their form.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from amplifier_tools._spans import Spans
from amplifier_tools._tree import TreePrinter

from .filter import filtered
from .progress import watched
from .source import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_tools._entry import Entry

    from .filter import Wanted

__all__ = ["show"]

_AT_ONCE = 1000  # entries after which their trees are on the screen


@click.command()
@click.argument("path", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--follow", "-f", is_flag=True, help="Go on while the log grows. Ctrl-C ends it.")
@filtered
def show(path: Path, wanted: Wanted | None, *, follow: bool) -> None:
    """Show the trees of the events in LOG: when, how long, what policy decided, and what went wrong.

    Rotated files (LOG.1, LOG.2 …) are read first. Spans above one that a filter lets through are shown with it. At the
    end stderr says how many lines were no events, and how many events are missing.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is the one of the process
    console = Console(highlight=False)
    with opened(path, follow=follow) as reader:
        spans = Spans(wanted)
        _print(watched(reader, console), spans, TreePrinter(console), follow=follow)


def _print(entries: Iterator[Entry], spans: Spans, printer: TreePrinter, *, follow: bool) -> None:
    with contextlib.suppress(*[KeyboardInterrupt] * follow):  # that is how one ends a log without an end
        for n, entry in enumerate(entries):
            printer.begin(entry.began)
            for node in spans.add(entry):
                printer.print(node)
            if follow or n % _AT_ONCE == 0:
                printer.flush()
    for node in spans.finish():
        printer.print(node)
    printer.flush()
