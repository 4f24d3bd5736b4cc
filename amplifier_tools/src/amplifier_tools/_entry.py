"""Entries: what is shown of the events of a log, read from lines that anybody may have written.

Owns the reading of a line and the words for an event. An entry is small whatever its line holds, since a tree keeps
thousands of them. It does not know which entries belong together: see `_spans`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ._text import line_of, printable, start_of

__all__ = ["Asked", "Entry", "read_entry"]

SPANS = ("module:invoke", "mount:add", "session:span")
"""The events that end a span. Every other event with a span's id happened in it."""

_BEGINS = "module:pre_invoke"

_TAG = 8  # digits of an id: the kernel's
_SHOWN = 72  # characters of arguments and of a result
_DATA_SHOWN = 120  # characters of the data of another event, and of a detail of an error
_ERROR_MAX = 256 * 1024  # bytes of an error whose details are looked at
_SPAN_MAX = 16 * 1024  # bytes of a span's data that is shown
_DETAILS, _STDERR = 16, 20  # details of an error, and lines of stderr
_ASKED = 16  # policy hooks that are shown
_TEXT_MAX = 16 * 1024  # characters of stderr that are looked at
_SEARCHED = ("stderr", "earlier_stderr")

_Name = Annotated[str, msgspec.Meta(max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e14)]
_Nothing = msgspec.Raw(b"")
_read_text = msgspec.json.Decoder(str | None).decode


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A policy hook that was asked. Its texts are printable and bounded."""

    hook: str
    decision: str
    took: float | None
    """Seconds."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is shown of one event. Its texts are bounded, and printable but for ids and ``module``."""

    event: str
    kernel: str
    """Digits that all events of one kernel have."""
    seq: int | None
    ts: float
    """Seconds since the Unix epoch, when the event was written."""
    took: float | None
    """Seconds."""
    failed: bool
    session: str
    module: str
    """What it is about, or who emitted it."""
    span: str
    parent: str
    """The span that this one is in. Empty for a root, also for one whose parent is in the trace of a caller."""
    title: str
    """What it is, in the same words for all that do the same."""
    text: str
    """The title, with arguments, result and the like."""
    lines: tuple[str, ...] = ()
    """What went wrong: the error, its details, and stderr."""
    asked: tuple[Asked, ...] = ()
    """The policy hooks that were asked, one after the other."""

    @property
    def began(self) -> float:
        """Seconds since the Unix epoch."""
        return self.ts - (self.took or 0.0)

    @property
    def ends_span(self) -> bool:
        """Whether the event is the end of its span, and not something that happened in it."""
        return bool(self.span) and self.event in SPANS

    @property
    def begins_span(self) -> bool:
        """Whether the event tells what its span is, before its end does."""
        return bool(self.span) and self.event == _BEGINS


class _Envelope(msgspec.Struct):
    """An envelope (protocol, section 7) whose ``data`` and ``error`` are not decoded yet."""

    id: _Name
    ts: _Seconds
    event: _Name
    component: _Name
    seq: int | None = None
    module: _Name | None = None
    status: _Name | None = None
    duration_ms: _Milliseconds | None = None
    session_id: _Name | None = None
    span_id: _Name | None = None
    parent_span_id: _Name | None = None
    data: msgspec.Raw = _Nothing
    error: msgspec.Raw = _Nothing


class _Data(msgspec.Struct):
    """The members of ``data`` that have words of their own."""

    op: msgspec.Raw = _Nothing
    args: msgspec.Raw = _Nothing
    result: msgspec.Raw = _Nothing
    kind: msgspec.Raw = _Nothing
    version: msgspec.Raw = _Nothing
    action: msgspec.Raw = _Nothing
    decision: msgspec.Raw = _Nothing
    scope: msgspec.Raw = _Nothing
    reason: msgspec.Raw = _Nothing
    unenforced: msgspec.Raw = _Nothing
    trusted: msgspec.Raw = _Nothing
    name: msgspec.Raw = _Nothing
    traceparent: msgspec.Raw = _Nothing
    hooks: msgspec.Raw = _Nothing
    pid: msgspec.Raw = _Nothing
    protocol: msgspec.Raw = _Nothing
    versions: msgspec.Raw = _Nothing
    platform: msgspec.Raw = _Nothing
    replayed: msgspec.Raw = _Nothing
    log: msgspec.Raw = _Nothing


class _Hook(msgspec.Struct):
    """The answer of one policy hook."""

    hook: _Name
    decision: _Name = ""
    duration_ms: _Milliseconds | None = None


class _Error(msgspec.Struct):
    code: msgspec.Raw = _Nothing
    message: msgspec.Raw = _Nothing
    details: msgspec.Raw = _Nothing


_envelope = msgspec.json.Decoder(_Envelope).decode
_data = msgspec.json.Decoder(_Data).decode
_error = msgspec.json.Decoder(_Error).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_hooks = msgspec.json.Decoder(list[_Hook]).decode
_FAULTS = (ValueError, RecursionError)


def read_entry(line: bytes) -> Entry | None:
    """Read one line. ``None``: it is torn, or no event."""
    try:
        read = _envelope(line)
    except _FAULTS:
        return None
    failed = read.status == "error" or len(read.error) > len("null")
    data = _own_data(read)
    return Entry(
        printable(read.event),
        printable(read.id[-_TAG:]),
        read.seq,
        read.ts,
        _seconds(read),
        failed,
        read.session_id or "",
        read.module or ("" if read.component == "kernel" else read.component),
        read.span_id or "",
        "" if data and data.traceparent else read.parent_span_id or "",
        *_words(read, data),
        tuple(_error_lines(read.error)) if failed else (),
        _asked(data) if data and data.hooks else (),
    )


def _seconds(read: _Envelope | _Hook) -> float | None:
    return None if read.duration_ms is None else read.duration_ms / 1000


def _own_data(read: _Envelope) -> _Data | None:
    """Read the data of an event that has words of its own. ``None``: it has none, or other data than it should."""
    try:
        return _data(read.data) if read.event in _WORDS else None
    except _FAULTS:
        return None


def _words(read: _Envelope, data: _Data | None) -> tuple[str, str]:
    """Say on one line what happened: its title, and all of it."""
    if data is not None:
        return _WORDS[read.event](data, read)
    name, module = line_of(read.event), line_of(read.module or "")
    if name in _WORDS:
        return name, f"{name} {module}".rstrip()
    author = "" if read.component in ("kernel", read.module) else line_of(read.component)
    return name, " ".join(filter(None, (name, module, author, start_of(read.data, _DATA_SHOWN))))


def _invoke(data: _Data, read: _Envelope) -> tuple[str, str]:
    title = f"{line_of(read.module or '?')} {_said(data.op)}".rstrip()
    result = f" → {start_of(data.result, _SHOWN)}" if data.result else ""
    return title, f"{title} {start_of(data.args, _SHOWN)}".rstrip() + result


def _mount(data: _Data, read: _Envelope) -> tuple[str, str]:
    title = f"mount {line_of(read.module or '')}"
    what = " ".join(filter(None, (_said(data.kind), _said(data.version))))
    return title, f"{title}{f' ({what})' if what else ''}{_unenforced(data)}"


def _decision(data: _Data, _: _Envelope) -> tuple[str, str]:
    title, action = f"policy: {_said(data.decision)}", _said(data.action)
    of = "" if action in ("", "mount", "invoke") else f" of {action}"
    scope = " for the session" if _said(data.scope) == "session" else ""
    reason = f": {reason}" if (reason := _said(data.reason)) else ""
    return title, f"{title}{of}{scope}{reason}{', trusted' if data.trusted else ''}{_unenforced(data)}"


def _span(data: _Data, read: _Envelope) -> tuple[str, str]:
    title = _said(data.name) or "session:span"
    members = _members(read.data) if len(read.data) <= _SPAN_MAX else {}
    others = {name: value for name, value in members.items() if name not in ("name", "traceparent")}
    return title, f"{title} {start_of(msgspec.json.encode(others), _DATA_SHOWN)}" if others else title


def _start(data: _Data, _: _Envelope) -> tuple[str, str]:
    said = (f"pid {_said(data.pid)}", f"protocol {_said(data.protocol)}", _said(data.versions), _said(data.platform))
    return "kernel:start", f"kernel:start {', '.join(filter(None, said))}"


def _replayed(data: _Data, read: _Envelope) -> tuple[str, str]:
    """Say what of a run was replayed before it went on. The event lasts as long as that took when it was recorded."""
    title = f"replayed: {_said(data.replayed)} events"
    of = f" of {name}" if (name := _said(data.log)) else ""
    return title, f"{read.event} {title}{of}, pid {_said(data.pid)}"


_WORDS = {
    "kernel:start": _start,
    "kernel:resume": _replayed,
    "kernel:fork": _replayed,
    "module:invoke": _invoke,
    _BEGINS: _invoke,
    "mount:add": _mount,
    "policy:decision": _decision,
    "session:span": _span,
}


def _asked(data: _Data) -> tuple[Asked, ...]:
    """Give the policy hooks that were asked, as far as they are looked at."""
    try:
        hooks = _hooks(data.hooks) if len(data.hooks) <= _ERROR_MAX else []
    except _FAULTS:
        return ()
    return tuple(Asked(line_of(each.hook), line_of(each.decision), _seconds(each)) for each in hooks[:_ASKED])


def _unenforced(data: _Data) -> str:
    return f", unenforced: {start_of(data.unenforced, _SHOWN)}" if len(data.unenforced) > len("[]") else ""


def _said(text: msgspec.Raw) -> str:
    """Show a text of JSON without its quotes, and any other value as it is."""
    try:
        return line_of(_read_text(text) or "") if text else ""
    except _FAULTS:
        return start_of(text, _SHOWN)


def _error_lines(error: msgspec.Raw) -> list[str]:
    """Say what went wrong, a line each."""
    try:
        read = _error(error)
        details = _members(read.details) if read.details and len(read.details) <= _ERROR_MAX else {}
    except _FAULTS:
        return [start_of(error, _DATA_SHOWN)] if error else []
    lines = [f"{_said(read.code)}: {_said(read.message)}"]
    plain = [name for name in details if name not in (*_SEARCHED, "module")]
    lines += [f"{line_of(name)}: {start_of(details[name], _DATA_SHOWN)}" for name in plain[:_DETAILS]]
    for name in _SEARCHED:
        lines += _stderr_lines(name, details.get(name, _Nothing))
    return lines


def _stderr_lines(name: str, text: msgspec.Raw) -> list[str]:
    try:
        said = (_read_text(text) or "")[-_TEXT_MAX:].rstrip() if text else ""
    except _FAULTS:
        said = ""
    lines = said.splitlines()[-_STDERR:]
    return [f"{name.replace('_', ' ')}:", *(f"  {_indented(line)}" for line in lines)] if lines else []


def _indented(line: str) -> str:
    """Show a line with the spaces that it begins with, which mean something in a traceback."""
    text = line_of(line)
    return " " * min(len(line) - len(line.lstrip(" ")), 40) + text
