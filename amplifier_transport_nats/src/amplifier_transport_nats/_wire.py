"""The words that a kernel and a worker say to each other over NATS, as PROTOCOL.md has them, and parts of messages.

Owns their syntax and their bounds. It does no I/O.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from amplifier_core.hookspecs import NotJson, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

METHODS = ("health", "describe", "invoke")
QUEUE = "q"
"""The queue group of all workers, which is that of NATS' own services."""

WORD = "Amplifier"
CHUNKS = "Amplifier-Chunks"
DROPPED = "Amplifier-Dropped"
STATUS = "Status"
"""The header by which nats-py gives a status of the server, such as 503: nobody listens there."""

TAKEN, ALIVE, FAILED, CANCEL = ({WORD: word} for word in ("taken", "alive", "failed", "cancel"))

PART = 256 * 1024
"""Bytes of a part, if the server takes that much."""
WINDOW = 2 * 1024 * 1024
"""Bytes that are sent before the other side has said that it read what came before."""
COST = 256
"""Bytes for which each message counts beside its payload."""

TAKEN_SECONDS = 0.1
ALIVE_SECONDS = 1.0
SILENCE_SECONDS = 3.0
FAILURE_BYTES = 64 * 1024
"""Of a `failed`: what is longer is no failure that anybody reads."""

_HEADERS_ROOM = 1024  # bytes, of what the server takes as one message
_WORD = re.compile(r"(taken|alive|failed|cancel|read ([0-9]{1,15})|part ([0-9]{1,12}) ([0-9]{1,12}))\Z")


def word_of(headers: Mapping[str, str] | None) -> tuple[str, int, int]:
    """Read the word of a message: its first letters, and up to two numbers. ``""``: a whole message.

    Raises ``ValueError``, with one line.
    """
    text = headers.get(WORD) if headers else None
    if text is None:
        return "", 0, 0
    found = _WORD.match(text)
    if found is None:
        raise ValueError(f"expected a word of the protocol, got {text[:40]!r}")
    return found[1].partition(" ")[0], int(found[2] or found[3] or 0), int(found[4] or 0)


def read(total: int) -> dict[str, str]:
    """Say that so many bytes have been read."""
    return {WORD: f"read {total}"}


def part_size(max_payload: int) -> int:
    """Give the size of parts over a server that takes so many bytes as one message."""
    return max(1, min(PART, max_payload - _HEADERS_ROOM))


def parts_of(data: bytes, size: int) -> Iterator[tuple[dict[str, str], bytes]]:
    """Cut a message into parts, with the headers of each."""
    for at in range(0, len(data), size):
        yield {WORD: f"part {at} {len(data)}"}, data[at : at + size]


def failure(code: str, message: str, details: Mapping[str, object]) -> bytes:
    """Write a ``failed``. Details that are no JSON, or too large, are left out."""
    from amplifier_core.hookspecs import encode  # noqa: PLC0415 - few calls fail

    body = {"code": code, "message": message[: FAILURE_BYTES // 8]}
    try:
        told = encode({**body, "details": details}, "failed")
    except NotJson:
        told = b""
    return told if 0 < len(told) <= FAILURE_BYTES else encode(body, "failed")


def failure_of(data: bytes) -> tuple[str, str, dict[str, object]]:
    """Read a ``failed``: its code, its message, its details. Raises ``ValueError``, with one line."""
    if len(data) > FAILURE_BYTES:
        raise ValueError(f"failed: expected at most {FAILURE_BYTES} bytes, got {len(data)}")
    told = decode(data, FAILURE_BYTES)
    code, message, details = (
        (told.get(name) for name in ("code", "message", "details")) if isinstance(told, dict) else (None, None, None)
    )
    if not isinstance(code, str) or not isinstance(message, str) or not isinstance(details, dict | None):
        raise ValueError("failed: expected an object with code and message")
    return code, message, details or {}


class Assembly:
    """The parts of one message at a time, in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._total = 0

    def add(self, offset: int, total: int, data: bytes) -> bytes | None:
        """Add a part. Give the message when it is whole. Raises ``ValueError`` for a part that does not come next."""
        if offset == 0 and not self._data:
            if total > self._limit:
                raise ValueError(f"expected at most {self._limit} bytes (limits.message_bytes), got {total}")
            self._total = total
        if not data or offset != len(self._data) or total != self._total or offset + len(data) > total:
            raise ValueError(f"expected the part of {self._total} bytes at {len(self._data)}, got {offset} of {total}")
        self._data += data
        if len(self._data) < total:
            return None
        whole, self._data = bytes(self._data), bytearray()
        return whole

    def check_whole(self, data: bytes) -> None:
        """Check a message that came whole. Raises ``ValueError``: too large, or amid the parts of another one."""
        if self._data:
            raise ValueError("a message came amid the parts of another one")
        if len(data) > self._limit:
            raise ValueError(f"expected at most {self._limit} bytes (limits.message_bytes), got {len(data)}")
