"""A contender in a process of its own, so that its heap, its loop and its imports disturb no other contender.

It owns both ends of the pipe between them. The child prints one line when it is ready, then reads ``NAME N`` and
answers with the seconds that one of N calls took. Its event loop does nothing meanwhile.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rounds import Measure


class Worker:
    """The end that asks. ``ready`` is the first line of the child."""

    def __init__(self, program: Path, *arguments: str, python: str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [python, str(program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def measure(self, name: str) -> Measure:
        """Measure the contender of that name in the child."""
        return functools.partial(self._ask, name)

    async def _ask(self, name: str, n: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {n}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def serve(measures: Mapping[str, Measure], ready: object = "ready") -> None:
    """Answer until the other end closes the pipe."""
    print(ready, flush=True)
    for line in sys.stdin:
        name, n = line.split()
        print(await measures[name](int(n)), flush=True)
