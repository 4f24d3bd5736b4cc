"""The tree of a request as lines of text: when each span began, how long it took, and what happened in it.

Owns the form of the lines, and their printing. `_spans` owns what is in a tree.
"""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment

from ._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderResult

    from ._entry import Entry
    from ._spans import Node

__all__ = ["TreePrinter"]

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with its style."""

_NO_TIME = " " * 23
_MINUTE = 60.0
_AT_ONCE = 500  # lines that are printed together


class TreePrinter:
    """Prints trees, one after the other. ``origin`` is the time that all times are shown from: the first one's."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._origin: float | None = None
        self._place = ("", "")
        self._lines: list[Line] = []

    def begin(self, ts: float) -> None:
        """Show times from this one on, in seconds since the Unix epoch."""
        if self._origin is None:
            self._origin = ts

    def print(self, node: Node) -> None:
        """Print a tree, with the next ``flush`` at the latest. Where its kernel or session is another, say so first."""
        self.begin(node.began)
        place = node.kernel, node.session
        if place != self._place:
            self._place = place
            self._lines.append(self._heading(node))
        for line in self._lines_of(node, "", ""):
            self._lines.append(line)
            if len(self._lines) >= _AT_ONCE:
                self.flush()

    def flush(self) -> None:
        """Print what waits: many lines together, since a console is slow, and slower with a bar below them."""
        lines, self._lines = self._lines, []
        if lines and self._console.is_terminal:
            self._console.print(_Rows(lines), end="", crop=False)
        else:
            self._console.file.writelines(f"{''.join(piece for piece, _ in line).rstrip()}\n" for line in lines)
            self._console.file.flush()

    def _heading(self, node: Node) -> Line:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(node.began))
        session = f", session {printable(node.session)}" if node.session else ""
        return ((f"── kernel {node.kernel}{session}, {stamp}", "bold"),)

    def _lines_of(self, node: Node, branch: str, below: str) -> Iterator[Line]:
        """Give the lines of a tree. ``branch`` stands before its first one, ``below`` before the others."""
        entry = node.entry
        if entry is None:
            begun = node.begun
            time, text = (
                (self._time_of(begun), f"{begun.text}, in flight")
                if begun
                else (_NO_TIME, f"span {printable(node.span)}")
            )
            yield (time, "cyan"), (branch, "dim"), (f"… {text}: its end is not here", "yellow")
        else:
            yield from self._entry_lines(
                entry, branch, f"{below}{'│ ' if node.below else '  '}", is_span=bool(node.span)
            )
        last = len(node.below) - (0 if node.more else 1)
        for n, each in enumerate(sorted(node.below, key=attrgetter("began"))):
            ends = n == last
            yield from self._lines_of(each, f"{below}{'└─' if ends else '├─'}", f"{below}{'  ' if ends else '│ '}")
        if node.more:
            failed = f", {node.more_failed:,} of them failed" if node.more_failed else ""
            yield (_NO_TIME, ""), (f"{below}└─", "dim"), (f"… {node.more:,} more{failed}", "yellow")

    def _entry_lines(self, entry: Entry, branch: str, below: str, *, is_span: bool) -> Iterator[Line]:
        mark, style = ("✗", "red") if entry.failed else ("✓", "green") if is_span else ("·", "dim")
        words = "red" if entry.failed and not is_span else "" if is_span else "dim"
        asked = ", ".join(f"{each.hook} {_duration(each.took)}" for each in entry.asked if each.took is not None)
        text = f"{entry.text} ({asked})" if asked else entry.text
        yield (self._time_of(entry), "cyan"), (branch, "dim"), (f"{mark} ", style), (text, words)
        for line in entry.lines:
            yield (_NO_TIME, ""), (f"{below}", "dim"), (f"  {line}", "red")

    def _time_of(self, entry: Entry) -> str:
        began = f"{round(entry.began - (self._origin or 0.0), 3) + 0.0:9.3f} s"  # the sum is never -0.0
        return f"{began} {_duration(entry.took) if entry.took is not None else '':>9}  "


class _Rows:
    """Lines for rich, each cut to the width of the terminal. Its ``Text`` would take four times as long."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            left = options.max_width
            for piece, style in line:
                size = cell_len(piece)
                shown = piece if size <= left else f"{set_cell_size(piece, max(0, left - 1))}…"
                yield Segment(shown, console.get_style(style) if style else None)
                left -= size
                if left < 0:
                    break
            yield Segment.line()


def _duration(seconds: float) -> str:
    """Show a duration with three digits."""
    if seconds < 1:
        return f"{_three(seconds * 1000)} ms"
    return f"{_three(seconds)} s" if seconds < _MINUTE else f"{int(seconds // _MINUTE)}:{int(seconds % _MINUTE):02} min"


def _three(number: float) -> str:
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"  # noqa: PLR2004 - digits
