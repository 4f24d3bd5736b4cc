"""Forks of a session that has fragments and mounts: the time of one beside a deep copy, and its memory."""

from __future__ import annotations

import copy
import functools
import gc
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import idle, mount_idle
from rounds import Contender, blocking, compare
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Pace

    from amplifier_core import Session

_FRAGMENTS = {
    f"fragment-{n}": {"role": "user", "text": f"{n} " + "x" * 200, "tags": ["draft", "text"], "tokens": n}
    for n in range(100)
}
_MOUNTS = 20
_AT_MOST = 1000  # forks that live at the same time while their making is measured


async def rows(pace: Pace) -> list[Row]:
    """Measure the making of a fork, with its event on disk, and its memory."""
    with tempfile.TemporaryDirectory() as folder:
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel:
            session = await kernel.session.create(Plan(goal="measure"))
            assert await mount_idle(session, _MOUNTS) == _MOUNTS
            for key, value in _FRAGMENTS.items():
                await session.context.set_fragment(key, value)
            plain = {"fragments": _FRAGMENTS, "mounts": [idle(n) for n in range(_MOUNTS)]}
            samples = await compare(
                (
                    Contender("limit", blocking(functools.partial(copy.deepcopy, plain))),
                    Contender("ours", functools.partial(_fork, kernel, session), at_most=_AT_MOST),
                ),
                pace,
            )
            weight = await _weight(kernel, session, 100 if pace.quick else 10_000)
    what = f"fork of {len(_FRAGMENTS)} fragments and {_MOUNTS} mounts"
    return [
        Row.of(f"{what}, to a deep copy", samples, goal=Goal(ratio=0.02, amount=3.0)),
        Row(path="memory of a fork that is idle", unit="B", ours=weight, goal=Goal(amount=700.0)),
    ]


async def _fork(kernel: Kernel, session: Session, n: int) -> float:
    fork, parent = kernel.session.fork, session.session_id
    began = time.perf_counter()
    forks = [await fork(parent) for _ in range(n)]
    seconds = (time.perf_counter() - began) / n
    for child in forks:
        await kernel.session.end(child.session_id)
    return seconds


async def _weight(kernel: Kernel, session: Session, n: int) -> float:
    """Give the bytes of one of n forks, with the objects that an embedder holds of it."""
    forks: list[Any] = [None] * n
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(n):
            forks[at] = await kernel.session.fork(session.session_id)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / n
