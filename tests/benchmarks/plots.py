"""Plots of growth: the cost over the number of things. Both scales are logarithmic.

It owns the plots, as text and as a picture. Where each thing should cost the same, it draws a rising line. Where the
number should not matter, it draws a level line. Where there is a limit, it draws that of the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from svg import Drawing, Log, decades_around

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COLUMNS, _WIDTH, _EDGE = 2, 880, 24
_CELL = (416, 250)
_BOX = (54, 34, 408, 206)  # left, top, right, bottom of the axes in a cell


@attrs.frozen
class Series:
    """Points of a number and seconds, in the order of numbers."""

    name: str
    points: tuple[tuple[float, float], ...]
    look: str = "ours"

    def worst(self, *, each: bool) -> float:
        """Give the cost at the largest number, for each thing or together, as a ratio to the least."""
        costs = [seconds / (n if each else 1) for n, seconds in self.points]
        return costs[-1] / min(costs)


@attrs.frozen
class Plot:
    """Series over the same numbers. With ``each`` they are costs of all things together, which should grow alike."""

    title: str
    series: tuple[Series, ...]
    each: bool = False


def text(plot: Plot) -> str:
    """Write one plot as a table."""
    lines = [plot.title]
    for series in plot.series:
        for n, seconds in series.points:
            one = f"   {_seconds(seconds / n):>9} each" if plot.each else ""
            lines.append(f"  {series.name:7}{_count(n):>7} {_seconds(seconds):>9}{one}")
        each = "each of the most" if plot.each else "with the most it"
        lines.append(f"  {series.name:7}{each} costs {series.worst(each=plot.each):.2f} times the least")
    return "\n".join(lines)


def draw(plots: Sequence[Plot], where: str, file: Path) -> None:
    """Draw all plots, side by side."""
    title = "How cost grows"
    spoken = "; ".join(_spoken(plots))
    drawing = Drawing(_WIDTH, title, spoken)
    drawing.text(_EDGE, 40, title, "title")
    told = "Logarithmic, both ways. Dashed: the same cost for each, or whatever is around. Grey: the limit."
    drawing.text(_EDGE, 60, told, "small")
    width, height = _CELL
    for n, plot in enumerate(plots):
        _plot(drawing, _EDGE + n % _COLUMNS * width, 78 + n // _COLUMNS * height, plot)
    bottom = 78 + -(-len(plots) // _COLUMNS) * height
    drawing.text(_EDGE, bottom + 14, where, "small")
    drawing.save(file, bottom + 34)


def _spoken(plots: Sequence[Plot]) -> Iterator[str]:
    for plot in plots:
        for series in plot.series:
            (first, cheap), (last, dear) = series.points[0], series.points[-1]
            name = f" ({series.name})" if series.name else ""
            yield f"{plot.title}{name}: {_seconds(cheap)} at {_count(first)}, {_seconds(dear)} at {_count(last)}"


def _plot(drawing: Drawing, x: float, y: float, plot: Plot) -> None:
    left, top, right, bottom = x + _BOX[0], y + _BOX[1], x + _BOX[2], y + _BOX[3]
    numbers = [n for series in plot.series for n, _ in series.points]
    costs = [seconds for series in plot.series for _, seconds in series.points]
    across, up = Log(min(numbers), max(numbers), left + 8, right - 52), Log(*decades_around(costs), bottom, top)
    drawing.text(x, y + 16, plot.title, "head")
    for value in up.decades():
        drawing.line([(left, up(value)), (right, up(value))], "grid")
        drawing.text(left - 6, up(value) + 4, _seconds(value), "small", "end")
    for value in across.decades():
        drawing.text(across(value), bottom + 16, _count(value), "small", "middle")
    drawing.line([(left, bottom), (right, bottom)], "axis")
    for series in plot.series if all(each.look == "ours" for each in plot.series) else ():
        ends = [(across(n), up(seconds)) for n, seconds in _straight(series, each=plot.each)]
        drawing.line(ends, "goal", 1.5, "4 4")
    for n, series in enumerate(sorted(plot.series, key=_last)):  # keeps names apart that would touch
        _line(drawing, across, up, series, 4 + (8 - 16 * n if len(plot.series) > 1 else 0))


def _last(series: Series) -> float:
    return series.points[-1][1]


def _straight(series: Series, *, each: bool) -> list[tuple[float, float]]:
    """Give the ends of the line that the series should be: through its cheapest point."""
    least = min(seconds / (n if each else 1) for n, seconds in series.points)
    return [(n, least * (n if each else 1)) for n, _ in (series.points[0], series.points[-1])]


def _line(drawing: Drawing, across: Log, up: Log, series: Series, below: float) -> None:
    drawing.line([(across(n), up(seconds)) for n, seconds in series.points], series.look, 2)
    for n, seconds in series.points:
        drawing.dot(across(n), up(seconds), series.look)
    n, seconds = series.points[-1]
    drawing.text(across(n) + 8, up(seconds) + below, series.name or _seconds(seconds), "small")


def _seconds(value: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size * 0.9999), _UNITS[-1])
    return f"{value / size:.3g} {unit}" if value / size < 999.5 else f"{value / size:,.0f} {unit}"


def _count(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and not value % size:
            return f"{value / size:,.0f}{letter}"
    return f"{value:,.0f}"
