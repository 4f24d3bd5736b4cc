"""The file that a command writes: opened with the first bytes for it, and never one of the log's own.

Owns what a person is told of a file that cannot be written.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from amplifier_tools._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .log import Log

__all__ = ["OUTPUT", "Output"]

OUTPUT = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
"""The type of the option."""


class Output:
    """Takes bytes for a file, or for stdout. ``UsageError`` for a file that is one of the log's."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path = None if path is None or str(path) == "-" else path
        self._name = printable(str(self._path or "stdout"))
        self._file: IO[bytes] | None = None
        if self._path is not None and log.has(self._path):
            raise click.UsageError(f"{self._name}: expected another file than those of the log")

    def write(self, text: bytes) -> None:
        """Write bytes. ``ClickException`` if that cannot be."""
        with self._told():
            self._opened().write(text)

    def finish(self) -> None:
        """Write what waits. The file is there then, also if nothing was written."""
        with self._told():
            file = self._opened()
            file.flush()
            if self._path is not None:
                file.close()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = sys.stdout.buffer if self._path is None else self._path.open("wb")
        return self._file

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # who reads stdout has gone
            raise
        except OSError as error:
            raise click.ClickException(f"{self._name}: cannot be written: {error.strerror}") from None
