"""The body of one response, piece by piece or whole, and within its limit.

Owns unpacking and size. It does not look at what the body says.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, cast

from amplifier_core import Internal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

_PIECE = 64 * 1024


class Body:
    """The pieces of a body as they arrive, unpacked. Raises ``Internal`` and ``httpx.TransportError``.

    Closing it is for the caller to do. ``limit`` is the size of the largest message, in bytes.
    """

    def __init__(self, response: httpx.Response, url: httpx.URL, limit: int) -> None:
        self._response = response
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._url = url
        self.limit = limit

    @property
    def media_type(self) -> str:
        """The type that the response names, without parameters and in lower case."""
        content_type: str = self._response.headers.get("content-type", "")
        return content_type.partition(";")[0].strip().lower()

    def __aiter__(self) -> AsyncIterator[bytes]:
        coding = self._response.headers.get("content-encoding", "identity").lower()
        if coding == "identity":
            return self._stream.__aiter__()
        if coding in ("gzip", "x-gzip"):
            return _unpack(self, self._stream)
        raise self.error(f"the content-encoding {coding!r}, which was not asked for")

    async def read(self) -> bytes:
        """Read the whole body, which may be as large as one message."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            self.check_size(size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Release the connection; closes it if the body has not been read to its end."""
        await self._stream.aclose()

    def check_size(self, size: int) -> None:
        """Raise ``Internal`` for a message of more bytes than the limit."""
        if size > self.limit:
            raise self.too_large()

    def too_large(self) -> Internal:
        """Make the error of a message of more bytes than the limit."""
        return self.error(f"more than {self.limit} bytes (limits.message_bytes)", limit=self.limit)

    def error(self, what: str, **details: Any) -> Internal:
        """Make the error of a body that is not acceptable; ``what`` continues "answered with"."""
        details |= {"http_status": self._response.status_code, "url": str(self._url)}
        return Internal(f"{self._url} answered with {what}", details=details)


async def _unpack(body: Body, stream: httpx.AsyncByteStream) -> AsyncIterator[bytes]:
    """Yield the pieces of a body packed with gzip.

    Not httpx's decoders: they unpack all that they have before the size can be checked, and 64 KiB may hold 64 MiB.
    """
    gzip = zlib.decompressobj(wbits=31)
    async for part in stream:
        packed = part
        try:
            while piece := gzip.decompress(packed, _PIECE):
                yield piece
                packed = gzip.unconsumed_tail
        except zlib.error as error:
            raise body.error(f"gzip that cannot be unpacked: {error}") from error
        if gzip.unused_data:
            raise body.error("more after its gzip")
    if not gzip.eof:
        raise body.error("gzip without its end")
