"""Trace events, as Perfetto and Chrome read them: a slice for each span and each question to policy, else a mark.

Owns the form (the "Trace Event Format", an object with ``traceEvents``), and which lane a slice is drawn on: slices of
one lane have to be inside each other or apart. Times are microseconds since the Unix epoch. A slice that is still open
when the log ends has a begin alone.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_tools._entry import Entry
    from amplifier_tools._spans import Node

__all__ = ["TraceEvents"]

_LANES_MAX, _KERNELS_MAX = 1000, 1000
_OTHERS = "others"
_encode = msgspec.json.encode


class TraceEvents:
    """The trace events of a log, made of its trees in the order of their ends."""

    def __init__(self) -> None:
        self._kernels: dict[str, _Lanes] = {}

    def of(self, node: Node) -> Iterator[bytes]:
        """Give the events of a tree, each as JSON."""
        kernel = node.kernel if node.kernel in self._kernels or len(self._kernels) < _KERNELS_MAX else _OTHERS
        lanes = self._kernels.get(kernel)
        if lanes is None:
            lanes = self._kernels[kernel] = _Lanes(len(self._kernels) + 1)
            args = {"name": f"kernel {kernel}"}
            yield _encode({"ph": "M", "name": "process_name", "pid": lanes.pid, "tid": 0, "args": args})
        for lane, each, begin, end in lanes.place(node):
            yield _encode(_event(each, lanes.pid, lane, begin, end))


def _event(entry: Entry, pid: int, lane: int, begin: float, end: float) -> dict[str, Any]:
    since = int(begin * 1e6)  # whole numbers, so that a slice ends within the one that it is in
    event: dict[str, Any] = {"name": entry.title, "cat": entry.event, "pid": pid, "tid": lane, "ts": since}
    if end == math.inf:
        event["ph"] = "B"
    elif entry.ends_span or end > begin:
        event |= {"ph": "X", "dur": int(end * 1e6) - since}
    else:
        event |= {"ph": "i", "s": "t"}
    told = {"text": entry.text, "session": entry.session, "span": entry.span, "error": "\n".join(entry.lines)}
    event["args"] = {name: value for name, value in told.items() if value}
    if entry.failed:
        event["cname"] = "terrible"
    return event


_Placed = tuple[int, "Entry", float, float]
"""A lane, what is drawn there, and where it begins and ends: within the slice that it is in."""


class _Lanes:
    """The lanes of one kernel. What is put on one has to begin after all that is there has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ends: list[float] = []

    def place(self, node: Node) -> Iterator[_Placed]:
        """Place a tree. What is at the same time as its neighbour gets a lane of its own."""
        entry = node.entry or node.begun
        if entry is None:  # nothing says what it is: what is below it stands for itself
            for each in node.below:
                yield from self.place(each)
        elif node.span:
            within = (node.began, entry.ts if node.entry else math.inf)
            yield from self._place(node, entry, self._take(*within), within)
        else:
            yield 0, entry, entry.ts, entry.ts

    def _place(self, node: Node, entry: Entry, lane: int, within: tuple[float, float]) -> Iterator[_Placed]:
        begin, end = within
        yield lane, entry, begin, end
        yield from _hooks(entry, lane, within)
        free_from = begin
        for each in sorted(node.below, key=attrgetter("began")):
            below = each.entry
            if below is None:
                yield from self.place(each)
                continue
            began = min(max(below.began, begin), end)  # two clocks tell a time and a duration
            until = min(max(below.ts, began), end)
            if not each.span and until == began:
                yield lane, below, until, until
            elif began >= free_from:
                free_from = until
                yield from self._place(each, below, lane, (began, until))
            else:
                yield from self._place(each, below, self._take(began, until), (began, until))

    def _take(self, begin: float, end: float) -> int:
        """Give a lane on which nothing is from ``begin`` on: 1, 2, 3 … Where there are too many, the first one."""
        lane = next((n for n, free in enumerate(self._ends) if free <= begin), len(self._ends)) % _LANES_MAX
        if lane == len(self._ends):
            self._ends.append(end)
        self._ends[lane] = max(self._ends[lane], end)
        return lane + 1


def _hooks(entry: Entry, lane: int, within: tuple[float, float]) -> Iterator[_Placed]:
    """Place the policy hooks that an event tells of: they were asked one after the other."""
    began, end = within
    for each in entry.asked:
        if each.took is not None:
            until = min(began + each.took, end)
            yield lane, structs.replace(entry, title=each.hook, text=each.decision, lines=(), asked=()), began, until
            began = until
