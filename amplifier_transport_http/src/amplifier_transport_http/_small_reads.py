"""What httpcore reads for us, over HTTP/2 or through a proxy: in small pieces, and with a bound on empty frames.

Owns the reading, and whether a server of HTTP/2 has closed a connection. httpcore hands all that it has read to a
parser at once: 64 KiB of settings hold the loop for a third of a second. It keeps an object for each empty frame of
data, which costs the server no window. And before it uses a connection again it does not look at it: what the server
has said meanwhile, its good-bye too, would fail the next request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpcore

from amplifier_core.hookspecs import close_socket, watch_forks

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

_READ = 8 * 1024

_FRAMES_MAX = 10_000
"""Frames in a row that may carry no content."""

_FRAME_HEAD = 9
_DATA, _HEADERS, _GOAWAY = 0, 1, 7
_GOAWAY_MAX = 16 * 1024  # bytes of its payload, which no server may exceed
_NO_ERROR = bytes(4)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_AHEAD_MAX = 16  # pieces that may arrive on an idle connection
_TURNS = 8  # of the loop, in which what has arrived passes through every buffer that it may be in


class SmallReads(httpcore.AsyncNetworkBackend):
    """Connects as httpcore does. With ``http2``, frames are looked at: behind TLS if ``tls``."""

    def __init__(self, *, http2: bool, tls: bool) -> None:
        self._backend = httpcore.AnyIOBackend()
        self._http2 = http2
        self._tls = tls
        self._stream: _Stream | None = None  # the last one

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
        self._stream = _Stream(self, await connecting, frames)
        return self._stream

    def inside_tls(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        """Wrap a stream inside TLS, which takes the place of the one outside."""
        self._stream = _Stream(self, stream, _Frames() if self._http2 else None)
        return self._stream

    @property
    def leaving(self) -> bool:
        """Whether the server takes no more requests on the connection."""
        return self._stream is not None and self._stream.leaving

    async def is_open(self) -> bool:
        """Read what has arrived on an idle connection, and tell whether it can carry another request."""
        return self._stream is None or await self._stream.is_open()


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reads: SmallReads, stream: httpcore.AsyncNetworkStream, frames: _Frames | None) -> None:
        self._reads = reads
        self._stream = stream
        self._frames = frames
        self._ahead: list[bytes] = []  # read while the connection was idle
        self._closed = False
        watch_forks(self)

    @property
    def leaving(self) -> bool:
        return self._frames is not None and self._frames.leaving

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._ahead:
            return self._ahead.pop(0)
        while data := await self._stream.read(min(max_bytes, _READ), timeout):  # pragma: no branch - the end may come
            if self._frames is None or (data := self._frames.feed(data)):
                break
        return data

    async def is_open(self) -> bool:
        while not self.leaving and (data := await self._arrived()) is not None:
            if not data or self._frames is None or len(self._ahead) >= _AHEAD_MAX:
                return False
            try:
                data = self._frames.feed(data)
            except httpcore.RemoteProtocolError:  # too many frames
                return False
            if data:
                self._ahead.append(data)
        return not self.leaving

    async def _arrived(self) -> bytes | None:
        """Read what is there, without waiting for more: ``b""`` at the end. ``None``: nothing is there.

        The socket does not tell: TLS and asyncio hold what they have read of it, and on Windows asyncio reads ahead.
        """
        reading = asyncio.create_task(self._read_or_end())
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        finally:
            reading.cancel()  # loses nothing: what comes now stays in its buffer
            await asyncio.wait([reading])
        return None if reading.cancelled() else reading.result()

    async def _read_or_end(self) -> bytes:
        try:
            return await self._stream.read(_READ)
        except httpcore.NetworkError:  # pragma: no cover - as the system tells it
            return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._frames is not None:
            self._frames.note_sent(buffer)
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return self._reads.inside_tls(stream)

    def after_fork(self) -> None:
        """Close the child's copy of the socket, or the server would see no end of the connection."""
        if not self._closed:
            close_socket(self.get_extra_info("socket"))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Frames:
    """Looks at the frames of HTTP/2 that come (RFC 9113, sections 4.1 and 6.8).

    It counts those in a row without content. A good-bye that leaves no request of ours unanswered is taken out:
    httpcore would fail them all.
    """

    def __init__(self) -> None:
        self.leaving = False
        """Whether the server has said good-bye."""
        self._held = b""  # a part of a head, or of a good-bye
        self._payload = 0  # bytes of it that are still to come
        self._in_a_row = 0
        self._last_stream = 0  # of ours

    def note_sent(self, data: bytes) -> None:
        """Note the streams that whole frames of ours begin."""
        at = len(_PREFACE) if data.startswith(_PREFACE) else 0
        while at + _FRAME_HEAD <= len(data):
            if data[at + 3] == _HEADERS:
                self._last_stream = max(self._last_stream, _stream_id(data, at + 5))
            at += _FRAME_HEAD + int.from_bytes(data[at : at + 3], "big")

    def feed(self, data: bytes) -> bytes:
        """Look at what was read, and give what httpcore is to see. Raises ``httpcore.RemoteProtocolError``."""
        data, at, seen = self._held + data, 0, []
        while True:
            end = min(at + self._payload, len(data))
            seen.append(data[at:end])
            at, self._payload = end, self._payload - (end - at)
            if len(data) - at < _FRAME_HEAD:
                break
            size, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
            if kind == _GOAWAY and size <= _GOAWAY_MAX:
                end = at + _FRAME_HEAD + size
                if len(data) < end:
                    break
                seen.append(self._without_good_bye(data[at:end]))
                at = end
            else:
                seen.append(data[at : at + _FRAME_HEAD])
                at, self._payload = at + _FRAME_HEAD, size
            self._count(0 if kind == _DATA and size else 1)
        self._held = data[at:]
        return b"".join(seen)

    def _count(self, empty: int) -> None:
        self._in_a_row = self._in_a_row + 1 if empty else 0
        if self._in_a_row > _FRAMES_MAX:
            raise httpcore.RemoteProtocolError(f"more than {_FRAMES_MAX} frames of HTTP/2 in a row without content")

    def _without_good_bye(self, frame: bytes) -> bytes:
        self.leaving = True
        last, error = _stream_id(frame, _FRAME_HEAD), frame[_FRAME_HEAD + 4 : _FRAME_HEAD + 8]
        return b"" if error == _NO_ERROR and last >= self._last_stream else frame


def _stream_id(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF
