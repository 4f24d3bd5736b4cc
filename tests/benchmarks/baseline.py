"""The baseline: the ratios that are committed, and which of those measured now are worse by more than a fifth.

It has only ratios: times differ from machine to machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from table import ratio_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from table import Row

_WORSE = 1.2


def save(rows: Sequence[Row], where: str, file: Path) -> None:
    """Write the ratios, to three digits."""
    ratios = {row.path: float(f"{row.ratio:.3g}") for row in rows if row.ratio is not None}
    file.write_text(json.dumps({"where": where, "ratios": ratios}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load(file: Path) -> dict[str, float]:
    """Read the ratios."""
    ratios: dict[str, float] = json.loads(file.read_text("utf-8"))["ratios"]
    return ratios


def worse(rows: Sequence[Row], committed: Mapping[str, float]) -> dict[str, str]:
    """Name each path that got worse, and by how much. A path that the baseline does not have is not worse."""
    found = {}
    for row in rows:
        before = committed.get(row.path)
        if before is not None and row.ratio is not None and row.ratio > before * _WORSE:
            more = f"{row.ratio / before - 1:.0%} more than the baseline's {ratio_text(before)}"
            found[row.path] = f"{row.path}: {ratio_text(row.ratio)}, {more}"
    return found
