"""An NDJSON body: lines with chunks, then one with the final reply (protocol, section 4).

Owns the lines. It does not look at what the final reply says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import UNSET, NotJson, decode_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_core.hookspecs import Chunks

    from ._body import Body

MEDIA_TYPE = "application/x-ndjson"


async def read_final(body: Body, chunks: Chunks | None) -> bytes:
    """Pass each chunk on, and give the line of the final reply. Each line may be as large as one message.

    A line that is no chunk is the final reply; another line after it is an error. A reader that falls behind holds back
    this body alone: each request has a connection of its own.
    """
    lines = _Lines(body)
    final = b""
    async for piece in body:
        for line in lines.feed(piece):
            final = await _take(line, final, body, chunks)
    return await _take(lines.rest(), final, body, chunks)


async def _take(line: bytes, final: bytes, body: Body, chunks: Chunks | None) -> bytes:
    """Pass the line on if it is a chunk, and give the final reply as far as it is known."""
    if not line.strip():
        return final
    if final:
        raise body.error("a line that is no chunk before its last line")
    try:
        message = decode_message(line)
    except NotJson:
        return line
    if message.chunk is UNSET:
        return line
    if chunks is not None and not chunks.put(message.chunk, message.size):
        await chunks.room()
    return b""


class _Lines:
    """Splits pieces into lines, looking at each byte once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._begun = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        first, *more = piece.split(b"\n")
        self._begun += first
        self._body.check_size(len(self._begun))
        for start in more:
            yield bytes(self._begun)
            self._begun = bytearray(start)
            self._body.check_size(len(start))

    def rest(self) -> bytes:
        return bytes(self._begun)
