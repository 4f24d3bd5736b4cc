"""Entries: what is shown of the events of a log, read from lines that anybody may have written.

Owns the reading of a line and the words for an event. An entry is small whatever its line holds, since a tree keeps
thousands of them. It does not know which entries belong together: see `_spans`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ._text import line_of, printable, start_of

__all__ = ["Entry", "read_entry"]

SPANS = ("module:invoke", "mount:add")
"""The events that end a span. Every other event with a span's id happened in it."""

_TAG = 8  # digits of an id: the kernel's
_SHOWN = 72  # characters of arguments and of a result
_DATA_SHOWN = 120  # characters of the data of another event, and of a detail of an error
_ERROR_MAX = 256 * 1024  # bytes of an error whose details are looked at
_DETAILS, _STDERR = 16, 20  # details of an error, and lines of stderr
_TEXT_MAX = 16 * 1024  # characters of stderr that are looked at
_SEARCHED = ("stderr", "earlier_stderr")

_Name = Annotated[str, msgspec.Meta(max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
_Nothing = msgspec.Raw(b"")
_read_text = msgspec.json.Decoder(str | None).decode


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is shown of one event. Its texts are printable and bounded."""

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
    span: str
    parent: str
    title: str
    """What it is, in the same words for all that do the same."""
    text: str
    """The title, with arguments, result and the like."""
    lines: tuple[str, ...] = ()
    """What went wrong: the error, its details, and stderr."""

    @property
    def began(self) -> float:
        """Seconds since the Unix epoch."""
        return self.ts - (self.took or 0.0)

    @property
    def ends_span(self) -> bool:
        """Whether the event is the end of its span, and not something that happened in it."""
        return bool(self.span) and self.event in SPANS


class _Envelope(msgspec.Struct):
    """An envelope (protocol, section 7) whose ``data`` and ``error`` are not decoded yet."""

    id: _Name
    ts: _Seconds
    event: _Name
    component: _Name
    seq: int | None = None
    module: _Name | None = None
    status: _Name | None = None
    duration_ms: Annotated[float, msgspec.Meta(ge=0, le=1e14)] | None = None
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


class _Error(msgspec.Struct):
    code: msgspec.Raw = _Nothing
    message: msgspec.Raw = _Nothing
    details: msgspec.Raw = _Nothing


_envelope = msgspec.json.Decoder(_Envelope).decode
_data = msgspec.json.Decoder(_Data).decode
_error = msgspec.json.Decoder(_Error).decode
_details = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_FAULTS = (ValueError, RecursionError)


def read_entry(line: bytes) -> Entry | None:
    """Read one line. ``None``: it is torn, or no event."""
    try:
        read = _envelope(line)
    except _FAULTS:
        return None
    failed = read.status == "error" or len(read.error) > len("null")
    return Entry(
        printable(read.event),
        printable(read.id[-_TAG:]),
        read.seq,
        read.ts,
        None if read.duration_ms is None else read.duration_ms / 1000,
        failed,
        read.session_id or "",
        read.module or "",
        read.span_id or "",
        read.parent_span_id or "",
        *_words(read),
        tuple(_error_lines(read.error)) if failed else (),
    )


def _words(read: _Envelope) -> tuple[str, str]:
    """Say on one line what happened: its title, and all of it."""
    name, module = line_of(read.event), line_of(read.module or "")
    if name in _WORDS:
        try:
            return _WORDS[name](_data(read.data), module)
        except _FAULTS:
            return name, f"{name} {module}".rstrip()
    author = "" if read.component in ("kernel", read.module) else line_of(read.component)
    return name, " ".join(filter(None, (name, module, author, start_of(read.data, _DATA_SHOWN))))


def _invoke(data: _Data, module: str) -> tuple[str, str]:
    title = f"{module or '?'} {_said(data.op)}".rstrip()
    result = f" → {start_of(data.result, _SHOWN)}" if data.result else ""
    return title, f"{title} {start_of(data.args, _SHOWN)}".rstrip() + result


def _mount(data: _Data, module: str) -> tuple[str, str]:
    what = " ".join(filter(None, (_said(data.kind), _said(data.version))))
    return f"mount {module}", f"mount {module}{f' ({what})' if what else ''}{_unenforced(data)}"


def _decision(data: _Data, _: str) -> tuple[str, str]:
    title, action = f"policy: {_said(data.decision)}", _said(data.action)
    of = "" if action in ("", "mount", "invoke") else f" of {action}"
    scope = " for the session" if _said(data.scope) == "session" else ""
    reason = f": {reason}" if (reason := _said(data.reason)) else ""
    return title, f"{title}{of}{scope}{reason}{', trusted' if data.trusted else ''}{_unenforced(data)}"


_WORDS = {"module:invoke": _invoke, "mount:add": _mount, "policy:decision": _decision}


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
        details = _details(read.details) if read.details and len(read.details) <= _ERROR_MAX else {}
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
