"""Protobuf messages of one field: all that the service needs of protobuf.

Owns their bytes. The service's messages never get a second field: what they carry is JSON, and that grows.
"""

from __future__ import annotations

_FIELD_1_BYTES = b"\x0a"


def encode(value: bytes) -> bytes:
    """Encode a message whose field 1 is ``value``."""
    size, head = len(value), bytearray(_FIELD_1_BYTES)
    while size >> 7:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*head, size)) + value


def decode(data: bytes) -> bytes:
    """Give field 1 of a message. Raises ``ValueError``, with one line, for one that has no such field, or another."""
    size, at = 0, 1
    while at < len(data) and data[at] & 0x80 and at < 5:  # noqa: PLR2004 - seven bits a byte, of 32
        size |= (data[at] & 0x7F) << 7 * (at - 1)
        at += 1
    value = data[at + 1 :]
    if data[:1] != _FIELD_1_BYTES or at >= len(data) or len(value) != size | data[at] << 7 * (at - 1):
        raise ValueError("expected field 1, as bytes, and nothing else")
    return value
