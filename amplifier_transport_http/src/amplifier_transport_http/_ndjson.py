"""An NDJSON body: lines with chunks, then one with the final reply (protocol, section 4).

Owns the lines. It does not look at what the final reply says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import UNSET, LineBuffer, LineTooLongError, NotJson, decode_message

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Chunks

    from ._body import Body

MEDIA_TYPE = "application/x-ndjson"


async def read_final(body: Body, chunks: Chunks | None) -> bytes:
    """Pass each chunk on, and give the line of the final reply. Each line may be as large as one message.

    A line that is no chunk is the final reply; another line after it is an error. A reader that falls behind holds back
    this body alone: each request has a connection of its own.
    """
    lines = LineBuffer(body.limit)
    final = b""
    async for piece in body:
        try:
            complete = lines.feed(piece)
        except LineTooLongError:
            raise body.too_large() from None
        for line in complete:
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
