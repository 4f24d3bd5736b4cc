"""The table: each figure beside its limit and its goal, as text and as JSON.

It owns rows and their format. It measures nothing.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEAD = ("path", "limit", "ours", "ratio", "goal", "", "peers, as ratios")


@attrs.frozen
class Goal:
    """A goal: a ratio to the limit, an amount in the unit of the row, or either of them."""

    ratio: float | None = None
    amount: float | None = None


@attrs.frozen(kw_only=True)
class Row:
    """One path. Amounts are in ``unit``; ratios are to the limit, and each is the median of the rounds' own ratios.

    ``note`` says what is missing, and why; without a note nothing is. ``more`` tells the figures in other words.
    """

    path: str
    unit: str = "µs"
    limit: float | None = None
    ours: float | None = None
    ratio: float | None = None
    peers: Mapping[str, float] = attrs.field(factory=dict)
    goal: Goal = attrs.field(factory=Goal)
    note: str = ""
    more: str = ""

    @classmethod
    def of(
        cls,
        path: str,
        samples: Mapping[str, Sequence[float]],
        *,
        limit: str = "limit",
        ours: str = "ours",
        peers: Mapping[str, str] | None = None,
        goal: Goal | None = None,
        note: str = "",
    ) -> Row:
        """Make a row of samples in seconds; ``limit``, ``ours`` and the values of ``peers`` are names of samples."""

        def ratio(name: str) -> float:
            return median(one / other for one, other in zip(samples[name], samples[limit], strict=True))

        return cls(
            path=path,
            limit=median(samples[limit]) * 1e6,
            ours=median(samples[ours]) * 1e6,
            ratio=ratio(ours),
            peers={shown: ratio(name) for shown, name in (peers or {}).items()},
            goal=goal or Goal(),
            note=note,
        )

    @property
    def met(self) -> bool:
        """Whether the ratio or the amount reaches the goal."""
        pairs = ((self.ratio, self.goal.ratio), (self.ours, self.goal.amount))
        return any(is_ <= wanted for is_, wanted in pairs if is_ is not None and wanted is not None)

    def cells(self) -> tuple[str, ...]:
        """Give the row as text, a cell under each word of ``HEAD``."""
        goals = [ratio_text(self.goal.ratio), amount_text(self.goal.amount, self.unit)]
        goal = " or ".join(filter(None, goals))
        peers = ", ".join(f"{name} {ratio_text(value)}" for name, value in self.peers.items())
        return (
            self.path,
            amount_text(self.limit, self.unit),
            amount_text(self.ours, self.unit),
            ratio_text(self.ratio),
            goal,
            "✓" if self.met else "",
            " · ".join(filter(None, (peers, self.more, self.note))),
        )


def text(rows: Sequence[Row]) -> str:
    """Align rows: the first column and the last to the left, numbers to the right."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(HEAD) - 1
    laid = (
        "  ".join(
            cell.ljust(width) if n in (0, last) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    head, *rest = laid
    return "\n".join((head, "─" * max(map(len, (head, *rest))), *rest))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Give rows as JSON."""
    return [{**attrs.asdict(row), "met": row.met} for row in rows]


def ratio_text(value: float | None) -> str:
    """Write a ratio; a small one as a fraction."""
    if value is None:
        return ""
    return f"1/{1 / value:.3g}" if value < 0.2 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def amount_text(value: float | None, unit: str) -> str:
    """Write an amount in the unit that makes it short."""
    if value is None:
        return ""
    if unit == "µs" and value >= 1000:
        value, unit = value / 1000, "ms"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"
