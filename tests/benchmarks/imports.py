"""What `import amplifier_core` costs beyond its dependencies, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from rounds import Contender, compare
from table import Goal, Row

if TYPE_CHECKING:
    from rounds import Measure, Pace

_OTHERS = "import asyncio, attrs, cattrs, msgspec, orjson, platformdirs, pluggy"
"""The dependencies, and asyncio, which a program with a kernel runs already."""
_OURS = "import amplifier_core"


async def rows(pace: Pace) -> list[Row]:
    """Measure the first import of the dependencies, and of the core after them."""
    samples = await compare(
        (
            Contender("limit", _importing(_OTHERS), at_most=1),
            Contender("ours", _importing(_OURS, after=_OTHERS), at_most=1),
        ),
        pace,
    )
    return [Row.of("import, to its dependencies and asyncio", samples, goal=Goal(ratio=0.1, amount=5000.0))]


def _importing(what: str, after: str = "") -> Measure:
    program = f"from time import perf_counter\n{after}\nbegan = perf_counter()\n{what}\nprint(perf_counter() - began)"

    async def measure(_: int) -> float:
        return float(subprocess.check_output([sys.executable, "-I", "-c", program]))

    return measure
