"""An NDJSON body: lines with chunks, then one with the final reply (protocol, section 4).

Owns the lines. What the last one means is for ``_reply`` to say, how chunks reach their reader for the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import UNSET, NotJson, decode_message

from ._body import UnfitBody, check_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_core.hookspecs import Chunks

    from ._body import Body

MEDIA_TYPE = "application/x-ndjson"


async def read_final(body: Body, limit: int, chunks: Chunks | None) -> bytes:
    """Pass each chunk on, and give the line of the final reply; a line may have at most ``limit`` bytes.

    A reader that falls behind holds back this body, and with it its own module alone: each request has a connection
    of its own. Whatever is no chunk counts as the final reply, and no line may follow it.
    """
    lines = _Lines(limit)
    final = b""
    async for piece in body:
        for line in lines.feed(piece):
            final = await _take(line, final, chunks)
    return await _take(lines.rest(), final, chunks)


async def _take(line: bytes, final: bytes, chunks: Chunks | None) -> bytes:
    if not line.strip():
        return final
    if final:
        raise UnfitBody("a line that is no chunk before its last line")
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

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        first, *more = piece.split(b"\n")
        self._begun += first
        check_size(len(self._begun), self._limit)
        for start in more:
            yield bytes(self._begun)
            self._begun = bytearray(start)
            check_size(len(start), self._limit)

    def rest(self) -> bytes:
        return bytes(self._begun)
