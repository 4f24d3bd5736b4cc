"""The calls and mounts of a whole recording, to be found by what they are: for a program that makes them again.

Owns which recorded call is the one that is made now. All of the log is in memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from ._differences import Difference, part, told
from ._log import lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ._log import Entry
    from ._meaning import Meaning

_GIVEN_UP = ("cancelled", "timeout", "budget_exceeded")
_ACTS = ("session:start", "session:fork", "context:set", "hook:register", "mount:add", "mount:remove")


class Call(msgspec.Struct, eq=False):
    """One recorded call of a module."""

    sent: Entry
    """Its ``module:pre_invoke``."""
    turns: list[Entry] = []
    """What its module has sent before the end: chunks and replies, in order."""
    ended: Entry | None = None

    def was_given_up(self) -> bool:
        """Tell whether its caller gave up, or had no time left: then it depends on the time how far it comes."""
        return self.ended is not None and self.ended.read_error().get("code") in _GIVEN_UP


class Calls:
    """What a recorded program did that another one is held against."""

    def __init__(self, path: Path, meaning: Meaning) -> None:
        self._meaning = meaning
        self._calls: dict[str, Call] = {}
        self._left: defaultdict[tuple[str | None, str], list[Call]] = defaultdict(list)
        self._sessions: defaultdict[str | None, list[str]] = defaultdict(list)
        self._mounts: defaultdict[str | None, list[Entry]] = defaultdict(list)
        self.shown: dict[str, Entry] = {}
        """By the span of a mount what policy was asked about it."""
        self.acts: list[Entry] = []
        for line in lines(path):
            self._note(line.entry)
            self.last: Entry = line.entry

    def _note(self, entry: Entry) -> None:
        span_id = entry.span_id or ""
        call = self._calls.get(span_id)
        match entry.event:
            case "module:pre_invoke":
                call = self._calls[span_id] = Call(entry)
                self._left[entry.module, entry.read()["op"]].append(call)
            case "module:reply" | "module:chunk" if call is not None:
                call.turns.append(entry)
            case "module:invoke" if call is not None:
                call.ended = entry
            case "policy:request":
                self.shown[span_id] = entry
            case "mount:add":
                self._mounts[entry.module].append(entry)
            case "session:start" | "session:fork":
                maker = span_id if call is not None else None
                self._sessions[maker].append(entry.session_id or "")
        if is_act(entry):
            self.acts.append(entry)

    def session(self, maker: Call | None) -> str | None:
        """Give the id of the next session that a call has made, or the program itself."""
        made = self._sessions[maker.sent.span_id if maker else None]
        return made.pop(0) if made else None

    def mount(self, path: str) -> Entry | None:
        """Give the next mount at a path: its ``mount:add``."""
        mounts = self._mounts[path]
        return mounts.pop(0) if mounts else None

    def find(self, path: str, op: str, args: Any, above: Call | None) -> Call:
        """Give the next recorded call that is this one. Raises ``Difference`` if there is none."""
        left = self._left[path, op]
        span_id = above.sent.span_id if above else None
        for call in sorted(left, key=lambda each: each.sent.parent_span_id != span_id):
            if self._meaning.matches(call.sent.read()["args"], args):
                left.remove(call)
                return call
        if not left:
            raise Difference(self.last, f"no other call of {path} {op}", msgspec.json.encode(args).decode())
        wanted = left[0].sent
        data = msgspec.Raw(msgspec.json.encode({"op": op, "args": args}))
        raise Difference(wanted, *part(*map(msgspec.json.encode, ({"data": wanted.read()}, {"data": data}))))

    def check_end(self, done: list[Entry]) -> None:
        """Raise ``Difference`` for a call that was not made, and for another act that was not done, or was too much."""
        left = [call.sent for calls in self._left.values() for call in calls if not self._was_given_up(call)]
        for entry in sorted(left, key=lambda each: each.seq or 0):
            raise Difference(entry, told(entry), "nothing")
        for act in self.acts:
            found = next(self._same(act, done), None)
            if found is None:
                of_kind = next((each for each in done if each.event == act.event), None)
                raise Difference(act, told(act), told(of_kind))
            done.remove(found)
        if done:
            raise Difference(self.last, "nothing more", told(done[0]))

    def _was_given_up(self, call: Call | None) -> bool:
        """Tell whether a call was given up, or one above it."""
        while call is not None and not call.was_given_up():
            call = self._calls.get(call.sent.parent_span_id or "")
        return call is not None

    def _same(self, act: Entry, done: list[Entry]) -> Iterator[Entry]:
        for each in done:
            alike = each.event == act.event and each.module == act.module and each.status == act.status
            if alike and (act.event == "mount:add" or self._meaning.matches(act.read(), each.read())):
                yield each


def is_act(entry: Entry) -> bool:
    """Tell an act of a program's, or of a module's, from what the kernel tells of its own."""
    return entry.event in _ACTS or (entry.component == "kernel" and ":" in entry.event and _is_own(entry.event))


def _is_own(event: str) -> bool:
    return event.partition(":")[0] not in _KERNELS


_KERNELS = ("kernel", "session", "mount", "hook", "context", "module", "policy", "sink", "events")
