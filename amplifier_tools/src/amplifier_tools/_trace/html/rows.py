"""Rows: what the page draws of an event, and the line of the event as far as the page shows it.

Owns the kinds, whose colours the page has: who an event is about. A log does not say whether a person or a program
answered, so a person is known by name: see `PEOPLE`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_tools._entry import Asked, Entry

__all__ = ["PEOPLE", "line_of_event", "row_of"]

PEOPLE = ("*person*", "*human*")
"""Policy hooks and modules with such names, in lower case, ask a person, unless the command is told other ones."""

_KERNELS = ("kernel", "session", "mount", "hook", "context", "sink", "events")  # namespaces of events
_LINE_MAX = 64 * 1024  # bytes of a line that is shown as it is
_MEMBER_MAX = 16 * 1024  # bytes of a member of a longer one
_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def row_of(entry: Entry, origin: float, people: Sequence[str]) -> bytes:
    """Write the row of an event. Its times are milliseconds, counted from ``origin``."""
    status = "error" if entry.failed else "in flight" if entry.begins_span else "ok"
    took = None if entry.took is None else _milliseconds(entry.took)
    row: list[Any] = [
        entry.event,
        _kind(entry, people),
        status,
        entry.kernel,
        entry.session,
        entry.module,
        entry.span,
        entry.parent,
        _milliseconds(entry.began - origin),
        took,
        "kernel" if entry.event == "kernel:end" else entry.title,  # it is drawn from the kernel's beginning on
        [[each.hook, _hook_kind(each, people), each.decision, _milliseconds(each.took or 0)] for each in entry.asked],
    ]
    return _encode(row)


def line_of_event(line: bytes) -> bytes:
    """Give a line as the page has it: of a very long one, long members are left out, as the log itself does it."""
    if len(line) <= _LINE_MAX:
        return line
    members = _members(line)
    short = {name: {"$omitted": len(value)} if len(value) > _MEMBER_MAX else value for name, value in members.items()}
    shortened = _encode(short)
    return shortened if len(shortened) <= _LINE_MAX else _encode({"$omitted": len(line)})


def _kind(entry: Entry, people: Sequence[str]) -> str:
    namespace = entry.event.partition(":")[0]
    if namespace == "policy":
        return "person" if any(_hook_kind(each, people) == "person" for each in entry.asked) else "policy"
    if entry.event == "session:span":
        return "embedder"
    if namespace in _KERNELS:
        return "kernel"
    if not entry.module:
        return "embedder"
    return "person" if _is_person(entry.module, people) else "module"


def _hook_kind(asked: Asked, people: Sequence[str]) -> str:
    """Tell who answered. A hook that abstains did not ask anybody."""
    return "person" if asked.decision != "abstain" and _is_person(asked.hook, people) else "policy"


def _is_person(name: str, people: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in people)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
