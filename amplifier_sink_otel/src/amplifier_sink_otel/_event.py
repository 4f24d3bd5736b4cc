"""The reading of an event: the envelope of a line of the log (protocol, section 7), and the members of its data.

Owns what is read, and the bounds. It knows no conventions of OpenTelemetry.
"""

from __future__ import annotations

import re

import msgspec

Scalar = str | int | float | bool

TEXT_MAX = 1024
"""Characters of a text that is no content."""

CONTENT_MAX = 8192
"""Characters of arguments, of a result, and of the data of an event."""

_NOTHING = msgspec.Raw(b"")
_FAULTS = (ValueError, RecursionError)
_TRACE, _SPAN, _ROOT = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}"), "0" * 16
_ENDS = ("module:invoke", "mount:add", "session:span")
_LATEST = 2.0**33  # seconds: nanoseconds have 64 bits
_TAG = 8


class Event(msgspec.Struct, gc=False):
    """One envelope, whose ``data`` and ``error`` are not decoded yet."""

    id: str
    ts: float
    event: str
    component: str
    module: str | None = None
    status: str | None = None
    duration_ms: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    data: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING

    @property
    def kernel(self) -> str:
        """The digits that all events of one kernel have."""
        return self.id[-_TAG:]

    @property
    def end(self) -> int:
        """Nanoseconds since the Unix epoch, when the event was recorded."""
        return int(min(max(self.ts, 0.0), _LATEST) * 1e6) * 1000  # a float holds no more than microseconds

    @property
    def start(self) -> int:
        """The same for the beginning of what the event tells."""
        return max(self.end - int(min(max(self.duration_ms or 0.0, 0.0), _LATEST) * 1e6), 0)

    @property
    def ids(self) -> tuple[int, int, int] | None:
        """The ids of trace, span and parent, which is 0 for a root; ``None``: the event is in no span."""
        trace, span, parent = self.request_id or "", self.span_id or "", self.parent_span_id or _ROOT
        if not _TRACE.fullmatch(trace) or not _SPAN.fullmatch(span) or not _SPAN.fullmatch(parent):
            return None
        return int(trace, 16), int(span, 16), int(parent, 16)

    @property
    def ends_span(self) -> bool:
        """Whether the event is the end of its span, and not something that happened in it."""
        return self.event in _ENDS and self.duration_ms is not None

    @property
    def failed(self) -> bool:
        """Whether what the event tells has failed."""
        return self.status == "error" or len(self.error) > len("null")


_decode_event = msgspec.json.Decoder(Event).decode
_decode_scalar = msgspec.json.Decoder(Scalar | None).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_event(line: bytes) -> Event | None:
    """Read one line. ``None``: it is no event."""
    try:
        return _decode_event(line)
    except _FAULTS:
        return None


def members_of(value: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """Give the members of a JSON object; none, if it is something else."""
    try:
        return _decode_members(value) if value else {}
    except _FAULTS:
        return {}


def scalar_of(value: msgspec.Raw | None) -> Scalar | None:
    """Read text, a number, true or false; ``None``: it is something else. Of long text, the start is read."""
    try:
        read = _decode_scalar(value) if value else None
    except _FAULTS:
        return None
    if isinstance(read, str):
        return shortened(read)
    return read if not isinstance(read, int) or -(2**63) <= read < 2**63 else None


def text_of(value: msgspec.Raw | None) -> str:
    """Read text; "": it is something else. Of long text, the start is read."""
    read = scalar_of(value)
    return read if isinstance(read, str) else ""


def shortened(text: str, most: int = TEXT_MAX) -> str:
    """Give as much of a text as an attribute holds. What is cut ends with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def content_of(value: msgspec.Raw) -> str:
    """Give as much of JSON as an attribute holds, as it is written."""
    return shortened(bytes(memoryview(value)[: CONTENT_MAX * 4]).decode(errors="ignore"), CONTENT_MAX)
