"""One connection of a module: two sockets, and the bytes that go from each to the other.

Owns that no byte is lost or kept for long, and the end: a clean one on one side is one on the other, any other a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

CHUNK = 64 * 1024  # bytes that are read at once, and bytes that may wait for the other side
_RESET = struct.pack("ii", 1, 0)  # to linger for no time


def set_reset(sock: socket.socket) -> None:
    """Have the peer see a reset when the socket is closed: it did not reach what it asked for."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Connection:
    """A module's socket joined to that of a host. ``idle``: seconds after which it ends if nothing goes through."""

    def __init__(self, idle: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._over: asyncio.Future[None] = self._loop.create_future()
        self.inner, self.outer = Side(self), Side(self)
        self.inner.other, self.outer.other = self.outer, self.inner
        self._moved = self._loop.time()

    async def run(self, inner: socket.socket, outer: socket.socket) -> None:
        """Carry bytes until both sides have ended. If it is cancelled, both are reset."""
        try:
            await self._loop.create_connection(lambda: self.inner, sock=inner)
            await self._loop.create_connection(lambda: self.outer, sock=outer)
            self.inner.transport.resume_reading()
            self.outer.transport.resume_reading()
            while (left := self._moved + self._idle - self._loop.time()) > 0:
                if (await asyncio.wait((self._over,), timeout=left))[0]:
                    return
        finally:
            self.reset()

    def note(self) -> None:
        """Note that bytes went through."""
        self._moved = self._loop.time()

    def lost(self) -> None:
        """Note that a side is gone."""
        if self.inner.gone and self.outer.gone:
            self._over.set_result(None)

    def reset(self) -> None:
        """End both sides at once, as far as they have not ended."""
        self.inner.reset()
        self.outer.reset()


class Side(asyncio.BufferedProtocol):
    """One socket of a connection. It reads nothing until both are there: what it read would be lost."""

    other: Side
    transport: asyncio.Transport

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(CHUNK))
        self._ended = False
        self.gone = False
        self.count = 0
        """Bytes that came from this side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the other side."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.pause_reading()
        self.transport.set_write_buffer_limits(CHUNK)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Give where the next bytes are read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass bytes on."""
        self.count += nbytes
        self._connection.note()
        self.other.transport.write(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """Pass the end on. The other direction stays open until that side ends too."""
        self._ended = True
        try:
            self.other.transport.write_eof()
        except OSError:  # it is gone already
            self._connection.reset()
        if self.other.has_ended():
            self.transport.close()
            self.other.transport.close()
        return True

    def has_ended(self) -> bool:
        """Tell whether this side has said that no more bytes come."""
        return self._ended

    def pause_writing(self) -> None:
        """Read no more from the other side while this one does not take what there is."""
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on from the other side. It has not ended: its end is not read while it is paused."""
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Reset the other side, unless both have ended."""
        self.gone = True
        if exc is not None:
            self.other.reset()
        self._connection.lost()

    def reset(self) -> None:
        """End this side with a reset, if it is there and has not ended."""
        if not self.gone and hasattr(self, "transport"):
            sock = self.transport.get_extra_info("socket")
            set_reset(sock)
            self.transport.abort()
