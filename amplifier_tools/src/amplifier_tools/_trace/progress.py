"""How much of a log has been read, on a terminal.

Owns the bar. Where there is no terminal there is no bar, nor for a log that is followed: it has no end to measure by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_tools._entry import Entry

    from .reader import Reader

__all__ = ["watched"]

_UPDATE = 1000  # entries


def watched(reader: Reader, stdout: Console) -> Iterator[Entry]:
    """Give the entries, and show meanwhile how far they are. Lines of ``stdout`` stay above the bar."""
    log, entries = reader.log, reader.entries()
    console = stdout if stdout.is_terminal else Console(stderr=True)
    if log.follow or not console.is_terminal:
        yield from entries
        return
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=log.size)
        for n, entry in enumerate(entries):
            if n % _UPDATE == 0:
                progress.update(task, completed=log.read)
            yield entry
