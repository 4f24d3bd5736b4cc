"""What of a run has begun and not ended, as far as its replay has come."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ._endings import ENDED_EARLY, ENDS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from ._log import Entry


class Open:
    """The invocations and mounts that are open, and the questions to policy about them."""

    def __init__(self) -> None:
        self.above: dict[str, str | None] = {}
        """Each span that is open, with the one above it."""
        self._sent: set[str | None] = set()
        self._given_up: set[str | None] = set()
        self._questions: Counter[str] = Counter()

    @property
    def sent(self) -> Container[str | None]:
        """The spans of what was sent to its module."""
        return self._sent

    def is_asked_about(self, span_id: str) -> bool:
        """Tell whether policy is asked about a span."""
        return self._questions[span_id] > 0

    def is_too_early(self, entry: Entry) -> bool:
        """Tell whether the log has an event before the one that it follows: the kernel may be ahead of the log."""
        if entry.event == "policy:decision":
            return bool(entry.read().get("hooks")) and not self._questions[entry.span_id or ""]
        needs_sent = entry.event in ("module:reply", "module:chunk") or (entry.event in ENDS and entry.status == "ok")
        return needs_sent and entry.span_id not in self._sent

    def too_much(self, left: Iterable[Entry]) -> Entry | None:
        """Give the first of what was done too much, but for what a module began when it was given up.

        The replayed kernel may be ahead of the log: it may have begun what the recorded one had not come to.
        """
        events = [*left]
        above = {each.span_id: each.parent_span_id for each in events}
        for each in events:
            span_id = each.span_id
            while span_id is not None and span_id in above:  # None: it is of no span, as the end of a session
                span_id = above[span_id]
            if span_id not in self._given_up:
                return each
        return None

    def note(self, entry: Entry) -> None:
        """Note what has happened."""
        span_id = entry.span_id or ""
        match entry.event:
            case "policy:request":
                self._questions[span_id] += 1
                self.above.setdefault(span_id, entry.parent_span_id)
            case "policy:decision":
                self._questions -= Counter((span_id,))
            case "module:wait":
                self.above.setdefault(span_id, entry.parent_span_id)
            case "module:pre_invoke" | "mount:pre_add":
                self._sent.add(span_id)
                self.above.setdefault(span_id, entry.parent_span_id)
            case "module:invoke" | "mount:add":
                self.above.pop(span_id, None)
                self._sent.discard(span_id)
                if ended_early(entry):
                    self._given_up.add(span_id)


def ended_early(entry: Entry) -> bool:
    """Tell the end of what was given up, or had no time left."""
    return entry.event in ENDS and entry.status == "error" and entry.read_error().get("code") in ENDED_EARLY
