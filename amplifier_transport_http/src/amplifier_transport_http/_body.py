"""The body of one response, in plain pieces or whole, and within its limit.

Owns unpacking and size. It does not look at what the body says.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    import httpx

_PIECE = 64 * 1024


class UnfitBody(Exception):
    """A body is too large, or not what it says it is; the message goes on from "answered with"."""


class Body:
    """The pieces of a body, unpacked, as they arrive. Raises ``UnfitBody``, ``httpx.TransportError``.

    Not httpx's decoders: they unpack all that they have before anyone can look at the size, and 64 KiB may hold 64 MiB.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._parts = cast("httpx.AsyncByteStream", response.stream).__aiter__()
        coding = response.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise UnfitBody(f"the content-encoding {coding!r}, which was not asked for")
        self._gzip = None if coding == "identity" else zlib.decompressobj(wbits=31)
        self._packed = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._gzip is None:
            return await anext(self._parts)
        while not (piece := self._unpack()):
            try:
                self._packed = await anext(self._parts)
            except StopAsyncIteration:
                if not self._gzip.eof:
                    raise UnfitBody("gzip without its end") from None
                raise
        return piece

    def _unpack(self) -> bytes:
        gzip = self._gzip
        assert gzip is not None  # noqa: S101 - for the type checker
        try:
            piece = gzip.decompress(self._packed, _PIECE)
        except zlib.error as error:
            raise UnfitBody(f"gzip that cannot be unpacked: {error}") from error
        if gzip.unused_data:
            raise UnfitBody("more after its gzip")
        self._packed = gzip.unconsumed_tail
        return piece


async def read_whole(body: Body, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes, unpacked."""
    pieces: list[bytes] = []
    size = 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        check_size(size, limit)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_size(size: int, limit: int) -> None:
    """Raise ``UnfitBody`` for a message of more bytes than the limit."""
    if size > limit:
        raise UnfitBody(f"more than {limit} bytes (limits.message_bytes)")
