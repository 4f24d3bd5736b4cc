"""What a person and a pipe see of a call: stdout has the result alone, stderr has all the rest.

Owns both streams, and is a sink of the kernel's events. It prints when the caller says so, and never within a write: a
terminal that is held must not hold the kernel.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from amplifier_tools._entry import read_entry
from amplifier_tools._spans import Spans
from amplifier_tools._text import json_line, json_page, line_of, printable
from amplifier_tools._tree import TreePrinter

from .ops import page_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core import KernelError
    from amplifier_tools._spans import Node

__all__ = ["Screen"]

_COLOURED = 100_000  # characters of JSON that are worth their colours
_CHUNK = 1000  # characters of a chunk on stderr


class Screen:
    """The two streams. ``quiet``: no tree and no chunks on stderr. ``chunks``: they are lines of stdout instead."""

    def __init__(self, *, quiet: bool, chunks: bool) -> None:
        self._quiet = quiet
        self._chunks = chunks
        self._errors = Console(stderr=True, highlight=False)
        self._printer = TreePrinter(self._errors)
        self._spans = Spans()
        self._complete: list[Node] = []
        self._error = Text()

    def write(self, line: bytes) -> None:
        """Take an event of the kernel's."""
        entry = read_entry(line)
        if entry is not None and not self._quiet:
            self._printer.begin(entry.began)
            self._complete += self._spans.add(entry)

    def close(self) -> None:
        """Take no more events. What never ended is shown as far as it goes."""
        self._complete += self._spans.finish()

    def show_trees(self) -> None:
        """Print what is complete."""
        complete, self._complete = self._complete, []
        for node in complete:
            self._printer.print(node)
        self._printer.flush()

    def show_chunk(self, chunk: object) -> None:
        """Print a chunk as it comes."""
        if self._chunks:
            _print_line(json_line({"chunk": chunk}))
        elif not self._quiet:
            self._errors.print(Text(f"chunk {line_of(json_line(chunk), _CHUNK)}", "magenta"), soft_wrap=True)

    def show_result(self, result: object) -> None:
        """Print the result."""
        if self._chunks:
            _print_line(json_line({"result": result}))
        else:
            _print_json(result)

    def show_ops(self, description: Mapping[str, Any]) -> None:
        """Print what the module says of itself: a page on a terminal, else JSON."""
        if sys.stdout.isatty():
            Console(highlight=False).print(*page_of(description), sep="\n")
        else:
            _print_line(json_line(description))

    def keep_error(self, error: KernelError, *hints: str) -> None:
        """Keep why there is no result, for the last lines. What its notes say of stderr stands in the tree already."""
        notes = [*getattr(error, "__notes__", ()), *(f"hint: {hint}" for hint in hints)]
        shown = [note for note in notes if self._quiet or note.startswith("hint:")]
        lines = [f"error: {error}", *(printable(line) for note in shown for line in note.splitlines())]
        self._error = Text("\n".join(lines), "red")

    def finish(self) -> None:
        """Print the rest, and at the end the error."""
        self.show_trees()
        if self._error:
            self._errors.print(self._error, soft_wrap=True)


def _print_json(value: object) -> None:
    text = json_page(value) if sys.stdout.isatty() else json_line(value)
    if sys.stdout.isatty() and len(text) <= _COLOURED:
        Console(highlight=False).print(JSONHighlighter()(Text(text)), soft_wrap=True)
    else:
        _print_line(text)


def _print_line(text: str) -> None:
    """Print JSON, which is UTF-8 whatever the encoding of the terminal."""
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()
