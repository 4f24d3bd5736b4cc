"""The name server of a sandbox: it knows the names that were granted, and tells nobody of the others.

Owns the form of its answers (RFC 1035). Most programs never ask it, as the names are in ``/etc/hosts`` too.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

QUERY_MAX = 4096
"""The most bytes of a query that are looked at."""

_HEAD = struct.Struct("!6H")
_A, _ANY, _INTERNET = 1, 255, 1
_IS_RESPONSE = 0x80  # in the third byte
_RESPONSE, _OPCODE, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0100
_AUTHORITATIVE, _RECURSION = 0x0400, 0x0080
_NO_NAME, _NOT_IMPLEMENTED, _BAD_FORM = 3, 4, 1
_SECONDS = 60  # that an answer holds


def answer(query: bytes, names: Mapping[str, str]) -> bytes | None:
    """Answer a query; ``None`` if it is none. A name without an address of the asked kind has an empty answer."""
    if not _HEAD.size <= len(query) <= QUERY_MAX or query[2] & _IS_RESPONSE:
        return None
    number, flags, questions, *_ = _HEAD.unpack_from(query)
    flags = flags & (_OPCODE | _RECURSION_DESIRED) | _RESPONSE | _AUTHORITATIVE | _RECURSION
    if flags & _OPCODE:
        return _HEAD.pack(number, flags | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    asked = _read_question(query) if questions == 1 else None
    if asked is None:
        return _HEAD.pack(number, flags | _BAD_FORM, 0, 0, 0, 0)
    name, kind, end = asked
    question = query[_HEAD.size : end]
    if name not in names:
        return _HEAD.pack(number, flags | _NO_NAME, 1, 0, 0, 0) + question
    if kind not in (_A, _ANY):
        return _HEAD.pack(number, flags, 1, 0, 0, 0) + question
    record = struct.pack("!3HIH", 0xC000 | _HEAD.size, _A, _INTERNET, _SECONDS, 4)
    return _HEAD.pack(number, flags, 1, 1, 0, 0) + question + record + ipaddress.IPv4Address(names[name]).packed


def _read_question(query: bytes) -> tuple[str, int, int] | None:
    """Read the name, the kind of record and where the question ends. A pointer has no place there."""
    labels, at = [], _HEAD.size
    while at < len(query) and 0 < query[at] < 64:  # noqa: PLR2004 - larger ones are pointers
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    end = at + 5
    if len(query) < end or query[at]:
        return None
    kind, kind_of_network = struct.unpack_from("!2H", query, at + 1)
    name = b".".join(labels).decode("ascii", "replace").lower()
    return (name, kind, end) if kind_of_network == _INTERNET else None
