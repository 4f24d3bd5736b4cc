"""The command ``trace html``: a log as a page for a browser.

Owns the options, and what is said of events that the page has not. `page` owns the page, `blocks` the bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from amplifier_tools._text import line_of
from amplifier_tools._trace.filter import filtered
from amplifier_tools._trace.output import OUTPUT, Output
from amplifier_tools._trace.progress import watched
from amplifier_tools._trace.source import opened

from .blocks import Blocks
from .page import Library, write_page
from .rows import PEOPLE, line_of_event, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_tools._trace.filter import Wanted
    from amplifier_tools._trace.reader import Reader

__all__ = ["html"]

_LAST = 100_000


@click.command()
@click.argument("path", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=OUTPUT, help="The file; else stdout.", metavar="FILE")
@click.option("--last", type=click.IntRange(1, 1_000_000), default=_LAST, show_default=True, help="Events at most.")
@click.option(
    "--person",
    "people",
    multiple=True,
    default=PEOPLE,
    show_default=True,
    help="Policy hooks and modules of this name ask a person; * stands for any text. Repeat it.",
    metavar="PATTERN",
)
@filtered
def html(path: Path, output: Path | None, last: int, people: Sequence[str], wanted: Wanted | None) -> None:
    """Write LOG as one page that needs no network: a timeline of its sessions and spans.

    Rotated files (LOG.1, LOG.2 …) are read first. Memory is bounded, here and in the browser: of a long log the page
    has the last events, and says how many it has not. Nothing that a log says runs in the page, nor is it fetched.
    """
    library = Library()
    with opened(path) as reader:
        file = Output(output, reader.log)
        blocks = Blocks(last)
        origin = _read(reader, blocks, people, wanted)
        left_out = _left_out(blocks)
        name = line_of(path.name)
        facts = {"log": name, "origin": origin, "notices": [*left_out, *reader.doubts()], "people": list(people)}
        write_page(file, library, name, facts, blocks)
        file.finish()
    for notice in left_out:
        click.echo(notice, err=True)


def _read(reader: Reader, blocks: Blocks, people: Sequence[str], wanted: Wanted | None) -> float:
    """Read the log into blocks. Give the time of the first event."""
    origin: float | None = None
    for entry in watched(reader, Console(stderr=True)):
        origin = entry.began if origin is None else origin
        if wanted is None or wanted(entry):
            blocks.add(row_of(entry, origin, people), line_of_event(reader.line))
    blocks.complete()
    return origin or 0.0


def _left_out(blocks: Blocks) -> list[str]:
    if not blocks.left_out:
        return []
    counts = f"the page has the last {blocks.events:,} events; {blocks.left_out:,} earlier ones were left out"
    return [f"{counts}: --last moves this bound, and --session, --module and --status choose what counts"]
