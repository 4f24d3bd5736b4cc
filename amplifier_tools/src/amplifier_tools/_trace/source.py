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
    """Open a log to read it; ``UsageError`` if that cannot be. At the end stderr has what was wrong with its lines."""
    try:
        reader = Reader(Log(path, follow=follow))
        yield reader
    except BrokenPipeError:  # who reads stdout has gone
        raise
    except OSError as error:
        raise click.UsageError(f"{printable(str(path))}: cannot be read: {error.strerror}") from None
    for doubt in reader.doubts():
        click.echo(doubt, err=True)
