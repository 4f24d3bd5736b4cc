"""The body of one response, piece by piece or whole, and within its limit.

Owns unpacking and size. It does not look at what the body says.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import httpx

from amplifier_core import Internal

from ._pool import Exchange
from ._response import SUCCESS, Response
from ._turn import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from amplifier_core import KernelError
    from amplifier_core.hookspecs import NotJson

_PIECE = 64 * 1024
"""Bytes that are unpacked at once."""

_BARREN_MAX = 64 * 1024
"""Bytes of gzip in a row that may unpack to nothing: heads, empty blocks, empty members."""

_IDENTITY = "identity"
_CODING_SHOWN = 80
"""Characters of a content-encoding that an error shows."""

_REASON = 200
"""Characters of a reason for which a page breaks off."""


class Body:
    """The pieces of a body as they arrive, unpacked. Raises ``KernelError`` and ``httpx.TransportError``.

    The body of a status that tells a failure raises the error of that status alone, whatever is wrong with it, and also
    if it breaks off: the status says more than its page. Any other body that is not acceptable is ``Internal``.

    Closing it is for the caller to do. ``limit`` is the size of the largest message, in bytes.
    """

    def __init__(self, response: httpx.Response | Exchange, url: httpx.URL, limit: int) -> None:
        self._response = response
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._url = url
        self.limit = limit
        content_type = response.headers.get("content-type") or ""
        self.media_type: str = content_type.partition(";")[0].strip().lower()
        """The type that the response names, without parameters and in lower case."""
        self._coding: str = (response.headers.get("content-encoding") or _IDENTITY).lower()

    def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = self._unpacked()
        return pieces if self._response.status_code in SUCCESS else self._of_failure(pieces)

    def _unpacked(self) -> AsyncIterator[bytes]:
        if self._coding == _IDENTITY:
            return self._stream.__aiter__()
        if self._coding in ("gzip", "x-gzip"):
            return _unpack(self, self._stream)
        raise self.error(f"the content-encoding {self._coding[:_CODING_SHOWN]!r}, which was not asked for")

    async def _of_failure(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces:
                yield piece
        except httpx.TransportError as error:
            raise self.error(f"a page that breaks off: {str(error)[:_REASON]}") from error

    async def read(self) -> bytes:
        """Read the whole body, which may be as large as one message."""
        arrived = self._stream.whole() if isinstance(self._stream, Exchange) and self._coding == _IDENTITY else None
        if arrived is not None:  # as a rule
            self.check_size(len(arrived))
            return arrived
        whole, turn = BytesIO(), Turn()  # unlike a list of pieces, it needs no second copy
        async for piece in self:
            self.check_size(whole.tell() + len(piece))
            whole.write(piece)
            await turn.share()
        return whole.getvalue()

    async def aclose(self) -> None:
        """Release the connection; closes it if the body has not been read to its end."""
        await self._stream.aclose()

    def check_size(self, size: int) -> None:
        """Raise the error of a message of more bytes than the limit."""
        if size > self.limit:
            raise self.too_large()

    def too_large(self) -> KernelError:
        """Make the error of a message of more bytes than the limit."""
        return self.error(f"more than {self.limit} bytes (limits.message_bytes)", limit=self.limit)

    def error(self, what: str, **details: Any) -> KernelError:
        """Make the error of a body that is not acceptable; ``what`` continues "answered with"."""
        status = self._response.status_code
        if status in SUCCESS:
            details |= {"http_status": status, "url": str(self._url)}
            return Internal(f"{self._url} answered with {what}", details=details)
        error = self._response_with(b"").error(what)
        error.details |= details
        return error

    def not_json(self, text: bytes, error: NotJson) -> KernelError:
        """Make the error of a body with a text that is no message."""
        return self._response_with(text).not_json(error)

    def _response_with(self, text: bytes) -> Response:
        return Response(self._url, self._response.status_code, self._response.headers, text)


async def _unpack(body: Body, stream: httpx.AsyncByteStream) -> AsyncIterator[bytes]:
    """Yield the pieces of a body packed with gzip, in one member or several (RFC 1952, 2.2).

    Not httpx's decoders: they unpack all that they have before the size can be checked, and 64 KiB may hold 64 MiB.
    """
    gzip, turn = _Gzip(body), Turn()
    async for part in stream:
        for piece in gzip.pieces(part):
            if piece:
                yield piece
            await turn.share()
    gzip.end()


class _Gzip:
    """Unpacks members of gzip, a piece at a time."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._member = zlib.decompressobj(wbits=31)
        self._barren = 0

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yield what a part of the body unpacks to; an empty piece only gives time for a turn."""
        more = bool(packed)
        while more:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            rest, piece = self._step(packed)
            self._barren = 0 if piece else self._barren + len(packed) - len(rest)
            if self._barren > _BARREN_MAX:
                raise self._body.error(f"more than {_BARREN_MAX} bytes of gzip in a row that unpack to nothing")
            more = bool(rest) or (bool(piece) and not self._member.eof)  # a piece that was full may have a rest inside
            packed = rest
            yield piece

    def _step(self, packed: bytes) -> tuple[bytes, bytes]:
        try:
            piece = self._member.decompress(packed, _PIECE)
        except zlib.error as error:
            raise self._body.error(f"gzip that cannot be unpacked: {error}") from error
        return self._member.unused_data if self._member.eof else self._member.unconsumed_tail, piece

    def end(self) -> None:
        """Check that the last member was complete."""
        if not self._member.eof:
            raise self._body.error("gzip without its end")
