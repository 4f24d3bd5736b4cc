"""Spans: builds the trees of requests from entries, as they come.

Owns which entry is below which, and how many are kept: a log may be of any length, and a request of any size. The end
of a span comes after all that happened in it, so a tree is complete with the end of its root. It shows nothing: see
`_tree`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._entry import Entry

__all__ = ["Node", "Spans"]

BELOW_MAX = 1000
"""How many entries below a span are shown. The others are counted."""

DEPTH_MAX = 64
"""Spans inside each other that are kept. The kernel allows 32."""

HELD_MAX = 20_000
"""Entries that wait for the end of their root. Beyond, what has waited longest is shown without its end."""


class Node(msgspec.Struct):
    """A span with what happened in it, or a single entry."""

    entry: Entry | None = None
    """``None``: the end of the span has not come."""
    begun: Entry | None = None
    """What the log says of a span before its end, if it does."""
    below: list[Node] = []
    more: int = 0
    """Entries below that are not kept, with how many of them failed."""
    more_failed: int = 0
    height: int = 0
    size: int = 1
    kernel: str = ""
    session: str = ""
    parent: str = ""
    span: str = ""

    @property
    def began(self) -> float:
        """When it began, or what was heard of it first, in seconds since the Unix epoch."""
        if self.entry is not None:
            return self.entry.began
        heard = self.below[0].began if self.below else math.inf
        return min(heard, self.begun.began) if self.begun else heard

    def add(self, node: Node, below_max: float) -> bool:
        """Put a node below this one, or count it. False: it was counted."""
        failed = node.entry is not None and node.entry.failed
        if len(self.below) >= below_max * (1 + failed) or node.height >= DEPTH_MAX:
            self.more += 1
            self.more_failed += failed
            return False
        self.below.append(node)
        self.height = max(self.height, node.height + 1)
        self.size += node.size
        return True


class Spans:
    """The trees of a log. ``wanted`` tells which entries are shown; spans above one are shown with it.

    ``below_max`` is how many entries directly below a span are kept; of those that failed, as many again.
    """

    def __init__(self, wanted: Callable[[Entry], bool] | None = None, below_max: float = BELOW_MAX) -> None:
        self._wanted = wanted
        self._below_max = below_max
        self._open: dict[tuple[str, str], Node] = {}  # in the order in which they were heard of first
        self._held = 0

    def add(self, entry: Entry) -> Iterator[Node]:
        """Take the next entry of the log. Give the trees that are complete now."""
        if not entry.span:
            if self._is_wanted(entry):
                yield _node(entry)
        elif entry.ends_span:
            node = self._end(entry)
            if node is not None and not entry.parent:
                yield node
            elif node is not None:
                self._attach(node, self._opened(entry.kernel, entry.parent, entry))
        elif entry.begins_span:
            span = self._opened(entry.kernel, entry.span, entry)
            span.parent, span.begun = entry.parent, entry
        else:
            span = self._opened(entry.kernel, entry.span, entry)
            span.parent = entry.parent
            self._attach(_node(entry), span)
        while self._held + len(self._open) > HELD_MAX:
            yield from self._give_up(next(iter(self._open)))

    def finish(self) -> Iterator[Node]:
        """Give the trees whose end has not come, as far as they go."""
        for key in reversed(list(self._open)):  # a span is heard of before those below it
            node = self._open[key]
            above = self._open.get((node.kernel, node.parent))
            if above is not None and above is not node:
                del self._open[key]
                if self._pruned(node):
                    above.add(node, self._below_max)
        for key in list(self._open):
            yield from self._give_up(key)

    def _end(self, entry: Entry) -> Node | None:
        """Complete a span. ``None``: neither it nor anything below it is wanted."""
        node = self._open.pop((entry.kernel, entry.span), None) or _node(entry)
        self._held -= node.size - 1
        node.entry, node.begun, node.parent = entry, None, entry.parent
        return node if self._is_wanted(entry) or self._pruned(node) else None

    def _give_up(self, key: tuple[str, str]) -> Iterator[Node]:
        node = self._open.pop(key)
        self._held -= node.size - 1
        if self._pruned(node):
            yield node

    def _pruned(self, node: Node) -> bool:
        """Leave below a span that is not wanted itself only what is. False: nothing is left.

        What happened in a span that has ended says less than its end, unless it failed.
        """
        if self._wanted is not None:
            ended = node.entry is not None
            node.below = [each for each in node.below if self._is_kept(each, failed_only=ended)]
            node.size = 1 + sum(each.size for each in node.below)
            return bool(node.below) or (node.begun is not None and self._is_wanted(node.begun))
        return True

    def _is_kept(self, node: Node, *, failed_only: bool) -> bool:
        """Tell whether a node stays below a span that is not wanted. Of spans, only those that do were put there."""
        entry = node.entry
        return bool(node.span) or entry is None or ((entry.failed or not failed_only) and self._is_wanted(entry))

    def _opened(self, kernel: str, span: str, entry: Entry) -> Node:
        """Give a span whose end has not come."""
        key = kernel, span
        node = self._open.get(key)
        if node is None:
            node = self._open[key] = Node(kernel=kernel, session=entry.session, span=span)
        return node

    def _attach(self, node: Node, above: Node) -> None:
        if above.add(node, self._below_max):
            self._held += node.size

    def _is_wanted(self, entry: Entry) -> bool:
        return self._wanted is None or self._wanted(entry)


def _node(entry: Entry) -> Node:
    span = entry.span if entry.ends_span else ""
    return Node(entry, kernel=entry.kernel, session=entry.session, span=span, parent=entry.parent)
