"""Calls over STDIO on this Python and, side by side with it, on another one if ``--beside`` names it.

A Python that was built with PGO, as those of most distributions are, runs the kernel faster than one that was not. The
limit gains less: most of it is the system's.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from on_python import CALLS
from rounds import Contender, compare
from table import Row
from worker import Worker

if TYPE_CHECKING:
    from rounds import Pace

_PROGRAM = Path(__file__).with_name("on_python.py")
beside: str = ""
"""The interpreter of an environment of the other Python, with the distributions and their transports."""


async def rows(pace: Pace) -> list[Row]:
    """Measure the same calls on each."""
    with contextlib.ExitStack() as workers:
        found = [python for python in (sys.executable, beside) if python]
        each = [workers.enter_context(Worker(_PROGRAM, python=python)) for python in found]
        samples = await compare(
            [
                Contender(f"{name}, {worker.ready}", worker.measure(name.replace(" ", "_")), step=step)
                for call, step in CALLS.items()
                for worker in each
                for name in (f"limit {call}", f"ours {call}")
            ],
            pace,
        )
        return [
            Row.of(f"{call}: {which}", samples, limit=f"limit {call}, {which}", ours=f"ours {call}, {which}")
            for call in CALLS
            for which in (worker.ready for worker in each)
        ]
