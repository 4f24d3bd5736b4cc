"""The log that a command is given: opened, with a line for what is wrong with it.

Owns what a person is told. `reader` owns the counts.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from amplifier_tools._text import printable

from .log import Log
from .reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["opened"]


@contextlib.contextmanager
def opened(path: Path, *, follow: bool = False) -> Iterator[Reader]:
    """Open a log to read it; ``UsageError`` if that cannot be. At the end stderr has what was wrong with its lines.

    ``ClickException`` if none of them is an event.
    """
    try:
        reader = Reader(Log(path, follow=follow))
        yield reader
    except BrokenPipeError:  # who reads stdout has gone
        raise
    except OSError as error:
        raise click.UsageError(f"{printable(str(path))}: cannot be read: {error.strerror}") from None
    for doubt in reader.doubts():
        click.echo(doubt, err=True)
    if not reader.events:
        _tell_no_events(f"{printable(str(path))}: it has no events", is_empty=not reader.log.read)


def _tell_no_events(text: str, *, is_empty: bool) -> None:
    """Say that a file has no events. One that has anything else is no log: ``ClickException``."""
    if not is_empty:
        raise click.ClickException(f"{text}; expected the log of a kernel, a JSON object a line")
    click.echo(text, err=True)
