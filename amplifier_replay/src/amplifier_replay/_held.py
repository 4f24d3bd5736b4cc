"""Invocations of the replayed kernel that wait for the log: nothing tells them that they are ahead of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._acts import STARTS
from ._endings import ENDS
from ._hooks import was_given_up_at
from ._open import ended_early

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ._log import Entry, Log
    from ._produced import Produced

BEGINS = (*STARTS, "mount:pre_add")
"""The events that begin a span."""


class Held:
    """The invocations that are held, by the event of the log with which each goes on."""

    def __init__(self, log: Log, produced: Produced) -> None:
        self._log = log
        self._produced = produced
        self._held: dict[int | None, asyncio.Future[None]] = {}
        self._due: Entry | None = None

    def hold(self, span_id: str, hook: str | None) -> Awaitable[None] | None:
        """Hold an invocation that would be ahead of the log: until its system calls begin, or policy is asked again.

        One that was given up before that, or when a hook had just answered, is held until it ends.
        """
        is_done = self._produced.ahead()

        def is_next(entry: Entry) -> bool:
            is_of_it = entry.span_id == span_id or (entry.parent_span_id == span_id and entry.event in BEGINS)
            return is_of_it and not is_done(entry)

        found = self._due if self._due is not None and is_next(self._due) else self._log.find(is_next)
        is_own = found is not None and found.span_id == span_id
        if found is None or (is_own and _goes_on(found) if hook is None else not was_given_up_at(found, hook)):
            return None
        held = asyncio.get_running_loop().create_future()
        if hook is None:
            self._held[found.seq] = held
        return held

    def wait_for(self, entry: Entry | None) -> None:
        """Note what is due now. ``None``: it has happened."""
        self._due = entry

    def let_go_on(self, entry: Entry) -> None:
        """Let an invocation go on that was held until now."""
        held = self._held.pop(entry.seq, None)
        if held is not None and not held.done():
            held.set_result(None)


def _goes_on(entry: Entry) -> bool:
    """Tell an event before which an invocation was asked for its next turn, or had ended by itself."""
    return entry.event in ("module:reply", "module:chunk", *ENDS) and not ended_early(entry)
