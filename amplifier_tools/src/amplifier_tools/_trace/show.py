"""The command ``trace show``: the trees of a log on a terminal, filtered, and as they grow.

Owns the options and the filter. `_spans` owns the trees, `_tree` their form.
"""

from __future__ import annotations

import contextlib
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from amplifier_tools._spans import Spans
from amplifier_tools._tree import TreePrinter

from .progress import watched
from .source import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amplifier_tools._entry import Entry

__all__ = ["show"]

_AT_ONCE = 1000  # entries after which their trees are on the screen


@click.command()
@click.argument("path", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--follow", "-f", is_flag=True, help="Go on while the log grows. Ctrl-C ends it.")
@click.option("--session", help="Only what happened in this session; the beginning of its id is enough.", metavar="ID")
@click.option("--module", help="Only this module: its path or its name; * stands for any text.", metavar="PATTERN")
@click.option("--status", type=click.Choice(["ok", "error"]), help="Only what ended so.")
def show(path: Path, session: str | None, module: str | None, status: str | None, *, follow: bool) -> None:
    """Show the trees of the events in LOG: when, how long, what policy decided, and what went wrong.

    Rotated files (LOG.1, LOG.2 …) are read first. Spans above one that a filter lets through are shown with it. At the
    end stderr says how many lines were no events, and how many events are missing.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is the one of the process
    console = Console(highlight=False)
    with opened(path, follow=follow) as reader:
        spans = Spans(_wanted(session, module, status))
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


def _wanted(session: str | None, module: str | None, status: str | None) -> Callable[[Entry], bool] | None:
    """Make the filter of the entries. ``None``: all are wanted."""
    if session is None and module is None and status is None:
        return None

    def wanted(entry: Entry) -> bool:
        return (
            (session is None or entry.session.startswith((session, f"ses_{session}")))
            and (module is None or fnmatchcase(entry.module, module) or fnmatchcase(entry.module, f"*/{module}"))
            and (status is None or entry.failed == (status == "error"))
        )

    return wanted
