"""What the replayed kernel has done so far, as its events, held against those of the log.

Owns what counts as equal: everything but number, id, time and durations, which are those of the log.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, UnsetType, structs

from ._log import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._new_log import NewLog
    from ._real import Real
    from ._spans import RecordedIds

_Key = tuple[str, str | None, str | None, str, str | None, bytes]
_ACTION_MAX = 64  # bytes
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Entry).decode


class Produced:
    """A sink (``amplifier_core.hookspecs.Sink``) of the replayed kernel."""

    def __init__(self, real: Real, ids: RecordedIds) -> None:
        self._real = real
        self._new: NewLog | None = None
        self._ids = ids
        self._waiting: dict[_Key, deque[Entry]] = {}
        self.mounting: Entry = Entry("", 0.0, "mount:pre_add", "kernel")
        """The mount that began last, whose connection is opened next."""

    def write(self, line: bytes) -> None:
        """Take an event."""
        entry = _decode(line)
        if entry.event == "mount:pre_add":
            self.mounting = entry
        if self._new is not None:
            self._new.write(entry)
            return
        if self._real.reports(entry):
            return
        if entry.event == "module:reply" and entry.span_id is not None:
            self._ids.end_turn(entry.span_id)
        key = _key(entry)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = deque()
        waiting.append(entry)

    def close(self) -> None:
        """Nothing is to be closed."""

    def go_on(self, new: NewLog) -> None:
        """Write what was done and is not in the log, and from now on all that is done."""
        left = self.left()
        self._waiting.clear()
        for entry in left:
            new.write(entry)
        self._new = new

    def take(self, entry: Entry) -> Entry | None:
        """Give what was done that is of the kind, session, span and module of an event of the log."""
        key = _key(entry)
        waiting = self._waiting.get(key)
        if waiting is None:
            return None
        found = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        return found

    def has(self, entry: Entry) -> bool:
        """Tell whether such a thing was done."""
        return _key(entry) in self._waiting

    def ahead(self) -> Callable[[Entry], bool]:
        """Give what tells, of one event of the log after the other, whether it was done already."""
        counts: dict[_Key, int] = {}

        def is_done(entry: Entry) -> bool:
            key = _key(entry)
            count = counts.get(key)
            counts[key] = (len(self._waiting.get(key, ())) if count is None else count) - 1
            return counts[key] >= 0

        return is_done

    def left(self) -> list[Entry]:
        """Give what was done that no event of the log was held against, in order."""
        return sorted((each for waiting in self._waiting.values() for each in waiting), key=_number)

    def first(self) -> Entry | None:
        """Give the first of what is left."""
        return next(iter(self.left()), None)


def _number(entry: Entry) -> int:
    return entry.seq or 0


def _key(entry: Entry) -> _Key:
    about = _action(entry.data) if entry.event.startswith("policy:") else b""
    return entry.event, entry.session_id, entry.span_id, entry.component, entry.module, about


def _action(data: Raw | UnsetType) -> bytes:
    """Give the ``action`` with which the data of a question begins: several may be in one span at the same time."""
    return bytes(memoryview(data)[:_ACTION_MAX]).partition(b",")[0] if isinstance(data, Raw) else b""


def as_told(done: Entry, told: Entry) -> Entry:
    """Give what was done as the log would have it: with the number, id, time and durations that the log has."""
    data = told.data if done.data == told.data else _with_times(done, told)  # of JSON that is not decoded: its bytes
    return structs.replace(done, id=told.id, ts=told.ts, seq=told.seq, duration_ms=told.duration_ms, data=data)


def are_equal(one: Entry, other: Entry) -> bool:
    """Tell whether two events are the same to the byte."""
    return one == other


def text_of(entry: Entry) -> bytes:
    """Write an event as a line, to show it."""
    return _encode(entry) + b"\n"


def _with_times(done: Entry, told: Entry) -> Raw | UnsetType:
    """Give ``data`` with the ids and times of the log, where such stand in it."""
    ours, theirs = done.read(), told.read()
    if done.event == "policy:decision":
        for mine, other in zip(ours.get("hooks", []), theirs.get("hooks", []), strict=False):
            mine["duration_ms"] = other.get("duration_ms")
    elif ours.get("op") == "on_event":
        event, other = _event(ours), _event(theirs)
        event |= {name: other[name] for name in ("id", "ts", "seq", "duration_ms") if name in event and name in other}
    return told.data if ours == theirs else Raw(_encode(ours))


def _event(data: dict[str, Any]) -> dict[str, Any]:
    args = data.get("args")
    event = args.get("event") if isinstance(args, dict) else None
    return event if isinstance(event, dict) else {}
