"""An NDJSON body: lines with chunks, then one with the final reply (protocol, section 4).

Owns the lines. It does not look at what the final reply says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core.hookspecs import UNSET, LineBuffer, LineTooLongError, NotJson

from ._reply import read_message
from ._turn import Turn

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Chunks

    from ._body import Body

MEDIA_TYPE = "application/x-ndjson"

_BLANK_MAX = 64 * 1024
"""Bytes of blank lines that may stand before a line of the largest size."""


async def read_final(body: Body, chunks: Chunks | None) -> bytes:
    """Pass each chunk on, and give the line of the final reply. Each line may be as large as one message.

    A line that is no chunk is the final reply; another line after it is an error. So is a line that is no message, as
    soon as it has come, and so are more bytes in a row than one message may have, if they complete none, and chunks
    without a final reply. A reader that falls behind holds back this body alone: each request has a connection of its
    own. Without any line this gives ``b""``.
    """
    lines, turn = LineBuffer(body.limit), Turn()
    final, idle, any_line = b"", 0, False
    async for piece in body:
        idle += len(piece)
        for line in _feed(lines, piece, body):
            final, idle, any_line = await _take(line, final, body, chunks), 0, True
            await turn.share()
        body.check_size(idle - _BLANK_MAX)
        await turn.share()
    rest = lines.rest()
    final = await _take(rest, final, body, chunks)
    if not final and (any_line or (rest and not rest.isspace())):
        raise body.error("a stream that ended without a final reply")
    return final


def _feed(lines: LineBuffer, piece: bytes, body: Body) -> list[bytes]:
    try:
        return lines.feed(piece)
    except LineTooLongError:
        raise body.too_large() from None


async def _take(line: bytes, final: bytes, body: Body, chunks: Chunks | None) -> bytes:
    """Pass the line on if it is a chunk, and give the final reply as far as it is known."""
    if not line or line.isspace():  # a copy without its end would be as large
        return final
    if final:
        raise body.error("a line that is no chunk before its last line")
    try:
        message = await read_message(line, body.limit)
    except NotJson as error:
        raise body.not_json(line, error) from None
    if message.chunk is UNSET:
        return line
    if chunks is not None and not chunks.put(message.chunk, message.size):
        await chunks.room()
    return b""
