"""The picture of the table: a bar for the kernel, thin bars for its peers, a mark for each goal.

It owns the layout and measures nothing. Rows without a goal are only in the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from svg import Drawing, Log, decades_around
from table import amount_text, ratio_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from table import Row

_WIDTH, _EDGE, _LEFT, _RIGHT = 880, 24, 316, 800
_OURS, _PEER, _PEER_PITCH, _GAP = 14, 7, 13, 14
_BESIDE = ", to "  # before the name of a limit that is no system call


def draw(rows: Sequence[Row], where: str, file: Path) -> None:
    """Draw the rows that have a goal."""
    title = "What the kernel costs"
    drawing = Drawing(_WIDTH, title, "; ".join(_spoken(rows)))
    drawing.text(_EDGE, 40, title, "title")
    _legend(drawing, 40)
    shown = [row for row in rows if row.ratio is not None and row.goal.ratio is not None]
    y = _panel(
        drawing,
        78,
        "Times what nobody can go below",
        "1 is the limit: the system calls and the JSON alone, with no kernel. Logarithmic; shorter is better.",
        [row for row in shown if row.goal.ratio is not None and row.goal.ratio >= 1],
    )
    y = _panel(
        drawing,
        y + 34,
        "Parts of what stands beside it",
        "1 is the grey bar. Logarithmic; shorter is better.",
        [row for row in shown if row.goal.ratio is not None and row.goal.ratio < 1],
    )
    for line in (*_amounts(rows), where):
        y += 20
        drawing.text(_EDGE, y, line, "small")
    drawing.save(file, y + 20)


def _spoken(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.ratio is not None and row.goal.ratio is not None:
            yield f"{row.path}: {ratio_text(row.ratio)}, goal {ratio_text(row.goal.ratio)}"


def _legend(drawing: Drawing, y: float) -> None:
    x = _WIDTH - _EDGE - 232
    drawing.bar(x, y - 11, 22, 12, "ours")
    drawing.text(x + 28, y, "Amplifier")
    drawing.line([(x + 104, y - 14), (x + 104, y + 3)], "goal", 3)
    drawing.text(x + 112, y, "goal")
    drawing.bar(x + 158, y - 8, 22, _PEER, "peer")
    drawing.text(x + 186, y, "others")


def _panel(drawing: Drawing, y: float, title: str, told: str, rows: Sequence[Row]) -> float:
    """Draw rows on one scale below y, and give the y of their end."""
    if not rows:
        return y
    drawing.text(_EDGE, y, title, "head")
    drawing.text(_EDGE, y + 18, told, "small")
    top = y + 46
    bottom = top + sum(map(_height, rows))
    scale = _scale(rows)
    _grid(drawing, scale, top, bottom)
    y = top
    for row in rows:
        _row(drawing, scale, y + _GAP / 2, row)
        y += _height(row)
    return bottom


def _scale(rows: Sequence[Row]) -> Log:
    """Reach over whole decades around 1. A bar may end a little beyond them: that is not worth another decade."""
    found = [value for row in rows for value in (row.ratio, row.goal.ratio, *row.peers.values()) if value is not None]
    return Log(*decades_around([1.0, min(found) * 1.3, max(found) * 0.7]), _LEFT, _RIGHT)


def _grid(drawing: Drawing, scale: Log, top: float, bottom: float) -> None:
    for value in scale.decades():
        x = scale(value)
        look = "axis" if value == 1 else "grid"
        drawing.line([(x, top), (x, bottom)], look)
        drawing.text(x, top - 6, ratio_text(value), "small", "middle")
        for part in (2, 5):
            if value * part < scale.high:
                drawing.line([(scale(value * part), top), (scale(value * part), bottom)], "grid", 0.6, "2 3")


def _height(row: Row) -> float:
    return _OURS + _GAP + _PEER_PITCH * len(_grey(row))


def _grey(row: Row) -> Mapping[str, float]:
    """Give the figures beside ours: the peers, and the limit under its name if it is not the bare system calls."""
    _, beside, other = row.path.rpartition(_BESIDE)
    return {**row.peers, **({other: 1.0} if beside and _is_part(row) else {})}


def _is_part(row: Row) -> bool:
    return row.goal.ratio is not None and row.goal.ratio < 1


def _row(drawing: Drawing, scale: Log, y: float, row: Row) -> None:
    assert row.ratio is not None
    assert row.goal.ratio is not None
    name = row.path.rpartition(_BESIDE)[0] if _is_part(row) else row.path
    drawing.text(_LEFT - 12, y + 11, name, anchor="end")
    ours, goal = scale(row.ratio), scale(row.goal.ratio)
    drawing.bar(_LEFT, y, ours - _LEFT, _OURS, "ours")
    drawing.line([(goal, y - 3), (goal, y + _OURS + 3)], "goal", 3)
    met, wanted = " ✓" if row.met else "", f"goal {ratio_text(row.goal.ratio)}"
    drawing.text(max(ours, goal) + 8, y + 11, f"{_short(row.ratio)}{met}", "value", more=wanted)
    y += _OURS + 5
    for peer, ratio in _grey(row).items():
        drawing.text(_LEFT - 12, y + 7, peer, "small", "end")
        drawing.bar(_LEFT, y, scale(ratio) - _LEFT, _PEER, "peer")
        if not _is_part(row):
            drawing.text(scale(ratio) + 8, y + 7, _short(ratio), "small")
        y += _PEER_PITCH


def _short(ratio: float) -> str:
    """Write a ratio with few digits. The table has more."""
    if ratio < 0.2:
        return f"1/{1 / ratio:.0f}"
    digits = 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f}\N{MULTIPLICATION SIGN}"


def _amounts(rows: Sequence[Row]) -> Iterator[str]:
    """Name the goals that are no ratio."""
    for row in rows:
        if row.goal.ratio is None and row.ours is not None and row.goal.amount is not None:
            met, goal = " ✓" if row.met else "", amount_text(row.goal.amount, row.unit)
            yield f"{row.path[0].upper()}{row.path[1:]}: {amount_text(row.ours, row.unit)}{met}, goal {goal}"
