"""What httpcore reads for us, over HTTP/2 or through a proxy: in small pieces, and with a bound on empty frames.

Owns the reading. httpcore hands all that it has read to a parser at once: 64 KiB of settings hold the loop for a third
of a second. And it keeps an object for each empty frame of data, which costs the server no window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

_READ = 8 * 1024

_FRAMES_MAX = 10_000
"""Frames in a row that may carry no content."""

_FRAME_HEAD = 9


class SmallReads(httpcore.AsyncNetworkBackend):
    """Connects as httpcore does. With ``http2``, frames are counted: behind TLS if ``tls``."""

    def __init__(self, *, http2: bool, tls: bool) -> None:
        self._backend = httpcore.AnyIOBackend()
        self._http2 = http2
        self._tls = tls

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; the stream reads in small pieces."""
        frames = _Frames() if self._http2 and not self._tls else None
        connecting = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(await connecting, frames, http2=self._http2)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, frames: _Frames | None, *, http2: bool) -> None:
        self._stream = stream
        self._frames = frames
        self._http2 = http2

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(min(max_bytes, _READ), timeout)
        if self._frames is not None:
            self._frames.feed(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Stream(stream, _Frames() if self._http2 else None, http2=self._http2)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Frames:
    """Counts the frames of HTTP/2 that come in a row without content (RFC 9113, section 4.1)."""

    def __init__(self) -> None:
        self._head = b""
        self._payload = 0  # bytes of it that are still to come
        self._in_a_row = 0

    def feed(self, data: bytes) -> None:
        """Look at what was read. Raises ``httpcore.RemoteProtocolError``."""
        data, at = self._head + data, 0
        while True:
            skipped = min(self._payload, len(data) - at)
            at, self._payload = at + skipped, self._payload - skipped
            if len(data) - at < _FRAME_HEAD:
                break
            self._payload, is_data = int.from_bytes(data[at : at + 3], "big"), data[at + 3] == 0
            self._in_a_row = 0 if is_data and self._payload else self._in_a_row + 1
            at += _FRAME_HEAD
        self._head = data[at:]
        if self._in_a_row > _FRAMES_MAX:
            raise httpcore.RemoteProtocolError(f"more than {_FRAMES_MAX} frames of HTTP/2 in a row without content")
