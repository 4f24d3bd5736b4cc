"""The CPU time of children that nobody waits for: Linux adds it to no process if their parent ignores SIGCHLD.

Owns the proof that a parent loses it, and the estimate. Such children may live and end between two samples, unseen. So
one that was seen running, and has ended since, stands for the whole time between the samples.
"""

from __future__ import annotations

import time
from typing import NamedTuple

_DOUBT_MS = 20.0  # that `/proc` rounds away: one tick of user time, and one of system time
_DOUBT = 1.25  # and between the two ways in which Linux accounts for CPU time


class Seen(NamedTuple):
    """What a sample saw of one process."""

    started: bytes
    parent: int
    running: bool
    own_ms: float
    waited_ms: float
    """The CPU time of the children that it has waited for."""


class Unreaped:
    """Compares the samples of one tree. ``lost_ms`` is the estimate so far."""

    def __init__(self) -> None:
        self.lost_ms: float = 0.0
        self._total_ms = 0.0
        self._last: dict[int, Seen] = {}
        self._parents: dict[tuple[int, bytes], tuple[float, float]] = {}  # waited at first; used by the ended children
        self._time = time.monotonic()

    def add(self, now: dict[int, Seen], processors: int) -> None:
        """Take the next sample. It adds at most the time since the last one, for each processor."""
        passed = (time.monotonic() - self._time) * 1000
        self._time += passed / 1000
        ended = [seen for pid, seen in self._last.items() if pid not in now or now[pid].started != seen.started]
        lost = sum(max(seen.own_ms, passed * seen.running) for seen in ended if self._is_lost(seen, now))
        self.lost_ms += min(lost, passed * processors)
        self._last = now
        self._parents = {key: value for key, value in self._parents.items() if key[0] in now}

    def total(self, cpu_ms: float) -> float:
        """Add the estimate to what was measured. It never falls, though what has left the tree is measured no more."""
        self._total_ms = max(self._total_ms, cpu_ms + self.lost_ms)
        return self._total_ms

    def _is_lost(self, child: Seen, now: dict[int, Seen]) -> bool:
        """Tell whether the parent of a child that has ended got less of its children's time than was seen of it."""
        before, parent = self._last.get(child.parent), now.get(child.parent)
        if before is None or parent is None or parent.started != before.started:  # the parent has ended too
            return False
        key = (child.parent, parent.started)
        first, used = self._parents.get(key, (before.waited_ms, 0.0))
        self._parents[key] = first, used + child.own_ms
        return used + child.own_ms > (parent.waited_ms - first) * _DOUBT + _DOUBT_MS
