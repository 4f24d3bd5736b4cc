"""How what was given up in a run ended: which call or mount, and by whom. It is ended so again.

Owns the search for the one that ended first, for whatever is below it was cancelled with it. What the kernel ends by
itself, such as the other calls of a turn whose results are too large, is left to it.

Where a run goes on, its log may end between the end of a call and that of the one above it, with which it ended. No
more is ended then than the log has as ended: the highest call that was given up. What is above it was open, and goes
on. If all that is known of a call is that the wait for policy's answer had ended, it fails with ``cancelled`` and the
reason: by its deadline or with its caller, nobody can tell. A replay of a run that has gone on knows no more there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from amplifier_core import Cancelled

from ._hooks import was_given_up
from ._module import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core import KernelError

    from ._acts import Embedder
    from ._hooks import Hooks
    from ._log import Entry, Log
    from ._spans import RecordedIds

ENDS = ("module:invoke", "mount:add")
"""The events that end a span of the kernel's."""

GOES_ON = ("kernel:resume", "kernel:fork")
"""Where a run has gone on: what is told from there on was not so before."""

_IN_DOUBT = (
    "it was given up while policy was asked; the log ends before it tells whether by a deadline or with its caller"
)
_AFTER_WAIT = ("policy:request", "module:pre_invoke", *ENDS)
_GIVEN_UP = "the caller gave up"
_SESSION_ENDED = re.compile(r"session (\S+) has ended")
_BY_DEADLINE = ("timeout", "budget_exceeded")
ENDED_EARLY = ("cancelled", *_BY_DEADLINE)
"""The codes of what ended with its caller, its session or its time."""


class Endings:
    """Ends what a recorded run had ended early."""

    def __init__(
        self, log: Log, ids: RecordedIds, embedder: Embedder, hooks: Hooks, is_embedders: Callable[[Entry], bool]
    ) -> None:
        self._log = log
        self._ids = ids
        self._embedder = embedder
        self._hooks = hooks
        self._is_embedders = is_embedders

    def end(self, entry: Entry, above: Mapping[str, str | None], *, waits: bool) -> bool:
        """End the operation of an event, or the one above it whose end was its own. False: nothing was given up.

        ``waits``: its module is asked, and an answer would end it as well.
        """
        span_id = entry.span_id or ""
        if entry.event == "module:invoke" and self._hooks.raise_through(span_id):
            return True
        body = entry.read_error() if entry.event in ENDS else self._outcome(span_id)
        if body is None:
            return self._ids.end(span_id, Cancelled(_IN_DOUBT))
        if self._ends_with_above(body, above.get(span_id)):
            return self._ids.end(span_id, failure_of(body))
        if not _is_given_up(body):
            is_answered = waits and body.get("code") in _BY_DEADLINE
            return not is_answered and self._end_top(entry, span_id, body, above)
        return self._cancel(entry, span_id, above) or self._end_above(entry, body, above)

    def end_unsent(self, entry: Entry) -> None:
        """End a call now that waits for its turn and was never sent: before its end, its turn might come."""

        def is_next(each: Entry) -> bool:
            return each is not entry and each.span_id == entry.span_id and each.event in _AFTER_WAIT

        found = self._log.find(is_next)
        if found is None or found.event not in ENDS:
            return
        body = found.read_error()
        span_id = entry.span_id or ""
        is_given_up = _is_given_up(body)
        by_itself = _session_of(body) is not None or body.get("code") in _BY_DEADLINE
        is_cancelled = is_given_up and self._embedder.cancel(span_id)
        is_below = is_given_up and entry.read().get("op") != "on_event"  # that ends with the question
        _ = is_cancelled or ((by_itself or is_below) and self._ids.end(span_id, failure_of(body)))

    def _cancel(self, entry: Entry, span_id: str, above: Mapping[str, str | None]) -> bool:
        """Give up a call of the embedder's, or what ends now below it while other work there still goes on."""
        if span_id not in self._embedder.calls:
            return False
        is_alone = self._goes_on_below(span_id, above) and self._cancel_alone(entry)
        return is_alone or self._embedder.cancel(span_id)

    def _end_top(self, entry: Entry, span_id: str, body: Mapping[str, Any], above: Mapping[str, str | None]) -> bool:
        """End an operation whose end was its own, or what ends now below it while other work there still goes on."""
        is_early = _session_of(body) is not None or body.get("code") in _BY_DEADLINE
        is_alone = is_early and self._goes_on_below(span_id, above) and self._cancel_alone(entry)
        return is_alone or self._end_itself(span_id, body)

    def _goes_on_below(self, top: str, above: Mapping[str, str | None]) -> bool:
        """Tell whether the log has more of what is below an operation than ends of what was given up.

        A cancellation goes down level by level, each in another turn of the loop. What is further below may have begun
        another step meanwhile.
        """
        below = {top}

        def is_below(entry: Entry) -> bool:
            span_id, chain = entry.span_id, entry.parent_span_id
            while chain is not None and chain not in below:
                chain = above.get(chain)
            if span_id is not None and chain is not None:
                below.add(span_id)
            return span_id in below

        def goes_on(entry: Entry) -> bool:
            if entry.span_id == top and entry.event in ENDS:
                return True
            return is_below(entry) and not _is_end_of_given_up(entry)

        found = self._find(goes_on)
        return found is not None and not (found.span_id == top and found.event in ENDS)

    def _cancel_alone(self, entry: Entry) -> bool:
        """Cancel the task that does what has ended now, as its group in the recorded kernel did."""
        if entry.event == "policy:decision":
            return self._hooks.cancel(entry)
        return self._ids.cancel(entry.span_id or "")

    def _ends_with_above(self, body: Mapping[str, Any], above: str | None) -> bool:
        """Tell whether an operation ended with its session before the one above it did so too.

        It is ended first, so that it does not hear from the one above it that its caller has given up.
        """
        session_id = _session_of(body)
        outcome = self._outcome(above) if session_id is not None and above is not None else None
        return outcome is not None and _session_of(outcome) == session_id

    def _end_itself(self, span_id: str, body: Mapping[str, Any]) -> bool:
        """End an operation whose end was its own: by its deadline, or with its session."""
        if (ended := _session_of(body)) is not None and (is_ended := self._end_session(ended)) is not None:
            return is_ended
        return (ended is not None or body.get("code") in _BY_DEADLINE) and self._ids.end(span_id, failure_of(body))

    def _end_above(self, entry: Entry, body: Mapping[str, Any], above: Mapping[str, str | None]) -> bool:
        """End the first operation above whose end was its own, or was not told any more."""
        given_up, span_id = entry.span_id or "", above.get(entry.span_id or "") or entry.parent_span_id
        if span_id is not None and (failure := self._hook_failure(span_id, entry.module)) is not None:
            self._ids.end_question(span_id, failure)
            return True
        while span_id is not None:
            outcome = self._outcome(span_id)
            if outcome is None:
                return self._end_below(span_id, given_up, body)
            if not _is_given_up(outcome):
                return self._end_top(entry, span_id, outcome, above)
            if self._cancel(entry, span_id, above):
                return True
            given_up, body, span_id = span_id, outcome, above.get(span_id)
        return False

    def _end_below(self, open_id: str, given_up: str, body: Mapping[str, Any]) -> bool:
        """End what was given up with an operation that has no end, or that one if its own wait had ended."""

        def ends_wait(entry: Entry) -> bool:
            return entry.span_id == open_id and entry.event == "policy:decision" and was_given_up(entry)

        if self._find(ends_wait) is not None:
            return self._ids.end(open_id, Cancelled(_IN_DOUBT))
        return self._ids.end(given_up, failure_of(body))

    def _outcome(self, span_id: str) -> dict[str, Any] | None:
        """Give the error with which an operation has ended. ``None``: the log does not tell its end."""
        found = self._find(lambda each: each.span_id == span_id and each.event in ENDS)
        return None if found is None else found.read_error()

    def _find(self, wanted: Callable[[Entry], bool]) -> Entry | None:
        """Look ahead for an event, but no further than to where the run went on."""
        found = self._log.find(lambda each: each.event in GOES_ON or wanted(each))
        return None if found is None or found.event in GOES_ON else found

    def _hook_failure(self, span_id: str, module: str | None) -> KernelError | None:
        """Give the error of a hook that is a module, if the question to it has ended and not the call in question."""

        def is_next(entry: Entry) -> bool:
            return entry.span_id == span_id and entry.event in ("hook:error", "policy:decision", *ENDS)

        found = self._find(is_next) if module is not None else None
        is_it = found is not None and found.event == "hook:error" and found.read().get("hook") == module
        return failure_of(found.read_error()) if found is not None and is_it else None

    def _end_session(self, session_id: str) -> bool | None:
        """End a session that the embedder has ended. The kernel itself ends one that a module has.

        ``None``: its end is not in the log.
        """
        ended = self._find(lambda each: each.event == "session:end" and each.session_id == session_id)
        if ended is None:
            return None
        _ = self._is_embedders(ended) and self._embedder.act(ended)
        return True


def _is_end_of_given_up(entry: Entry) -> bool:
    """Tell the end of what was given up from an event of what goes on."""
    if entry.event == "policy:decision":
        return was_given_up(entry)
    return entry.event in ENDS and _is_given_up(entry.read_error())


def _is_given_up(body: Mapping[str, Any]) -> bool:
    return body.get("code") == "cancelled" and body.get("message") == _GIVEN_UP


def _session_of(body: Mapping[str, Any]) -> str | None:
    """Give the session with whose end something ended."""
    found = _SESSION_ENDED.fullmatch(body.get("message", "")) if body.get("code") == "cancelled" else None
    return found[1] if found else None
