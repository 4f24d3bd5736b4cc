"""Modules behind a socket on which both sides speak the lines of section 3, for transports over other streams.

Owns the socket, and its end. Where it leads, what derives from ``SocketConnection`` says.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from amplifier_core import Unreachable
from amplifier_core.hookspecs import close_socket, watch_forks

from ._correlator import Correlator
from ._line_connection import LineConnection
from ._line_stream import LineStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Confinement, Notify

    from ._line_stream import LineReader


class SocketConnection(LineConnection):
    """One module that somebody else runs. It is connected to by ``start``, and by the first request after an end.

    ``place`` is where it is, for people: in errors and events. One connection carries all requests.
    """

    local = False

    def __init__(self, descriptor: ModuleDescriptor, notify: Notify, place: str) -> None:
        super().__init__(descriptor)
        self._limit = descriptor.message_bytes
        self._notify = notify
        self._place = place
        self._stream: SocketStream | None = None
        self._opening = asyncio.Lock()

    @abstractmethod
    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> object:
        """Connect with ``loop.create_connection(protocol, …)`` or the like. Raises ``OSError`` or a ``KernelError``."""

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002
        """Connect. What was granted is the server's own affair."""
        await self.begin()

    async def begin(self) -> Correlator:
        """Connect, unless another request has done so meanwhile."""
        async with self._opening:
            if self._closed:
                raise Unreachable("the module was unmounted")
            if self._stream is None or not self._stream.usable:
                self._current = await self._connected()
            return self._current

    async def _connected(self) -> Correlator:
        made: list[SocketStream] = []

        def start(lines: LineReader) -> SocketStream:
            made.append(SocketStream(lines, self._limit, self._notify, self._place))
            return made[0]

        correlator = Correlator(start, self._notify)
        (stream,) = made
        try:
            await self.connect(lambda: stream)
        except BaseException as error:
            stream.abandon()
            if isinstance(error, OSError):
                raise Unreachable(f"{self._place}: {error.strerror or error}") from error
            raise
        stream.check()
        self._stream = stream
        return correlator

    def clues(self) -> dict[str, Any]:
        """Give what may explain a missing answer."""
        return self._stream.clues() if self._stream else {}

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        async with self._opening:
            if self._stream is not None:
                await self._stream.close()


class SocketStream(LineStream, asyncio.Protocol):
    """One connection, from its start to its end. It emits ``module:noise`` and ``module:exit``."""

    closed = "the module closed the connection"
    killed = "the connection was closed"

    def __init__(self, lines: LineReader, limit: int, notify: Notify, place: str) -> None:
        super().__init__(lines, limit)
        self._loop = asyncio.get_running_loop()
        self._notify = notify
        self._place = place
        self._transport: asyncio.Transport
        self._why: KernelError | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._gone = self._loop.create_future()
        self.write = self._write

    @property
    def alive(self) -> bool:
        """Whether the connection is not known to have ended."""
        return self._finishing is None

    def _write(self, line: bytes, *, now: bool) -> None:  # noqa: ARG002 - a socket takes what it can at once
        if self._transport.is_closing():
            raise BrokenPipeError
        self._transport.write(line)

    def kill(self, error: KernelError | None = None) -> None:
        """End the connection at once; requests in flight fail with the error."""
        self._why = self._why or error
        super().kill(error)

    def end(self) -> None:
        """End the connection, and wait for nobody."""
        self._transport.abort()

    def abandon(self) -> None:
        """End the connection, if there is one already: nobody will use it."""
        if hasattr(self, "_transport"):
            self.kill(Unreachable("the connection was given up"))

    def check(self) -> None:
        """Raise the cause if the connection has ended already: no request would ever hear of it."""
        if not self.alive:
            why = self._why or Unreachable(self.closed)
            raise type(why)(why.message, details=why.details)

    def ending(self) -> None:
        """Send no more requests: the end of the connection follows."""
        self._stop(None)

    def read_on(self, *, on: bool) -> None:
        """Read on, or hold the server back."""
        (self._transport.resume_reading if on else self._transport.pause_reading)()

    async def close(self) -> None:
        """End the connection, and wait until it has ended; requests in flight fail."""
        self.kill(Unreachable("the module was unmounted"))
        await asyncio.wait((self._gone,))

    def after_fork(self) -> None:
        """Close the socket in a process that was forked from the kernel's."""
        close_socket(self._transport.get_extra_info("socket"))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._notify("module:start", {"place": self._place})
        watch_forks(self)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        self.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the requests in flight with the cause, once all that was read has been taken."""
        cause = f": {getattr(exc, 'strerror', None) or exc}" if exc else ""
        self._finishing = self._loop.create_task(self._finish(f"{self.closed}{cause}"), name=f"end of {self._place}")

    async def _finish(self, how: str) -> None:
        await self.taken()
        self._why = self._why or Unreachable(how)
        self._stop(self._why)
        self.report_noise(self._notify)
        self._notify("module:exit", {"place": self._place}, self._why)
        self._gone.set_result(None)
