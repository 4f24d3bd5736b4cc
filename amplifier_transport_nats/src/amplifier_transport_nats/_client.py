"""The client of nats-py, one connection that is never made again behind anybody's back.

Owns what is done to it: a bound on headers, no credentials without encryption, and its socket in a process that was
forked. The private names of nats-py that are used here are used nowhere else; `_parser` has those of its parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from nats import errors
from nats.aio.client import Client as NatsClient

from amplifier_core import Forbidden, KernelError, Unreachable
from amplifier_core.hookspecs import close_socket, watch_forks

from ._parser import HEADERS_MAX, BoundedParser
from ._wire import WORD

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Mapping

    from ._place import Place

PENDING = 8 << 20
"""Bytes that wait to be written: above, nats-py lets whoever publishes wait."""

_OPTIONS: dict[str, Any] = {
    "allow_reconnect": False,
    "connect_timeout": 2,
    "max_outstanding_pings": 1,
    "max_reconnect_attempts": 1,
    "pending_size": PENDING,
    "ping_interval": 5,
    "reconnect_time_wait": 0,
}
_CLOSE_SECONDS = 2
_WHOLE_SECONDS = 10  # for all that it takes to connect to one server
_REFUSED = ("authorization violation", "authentication")


class Client(NatsClient):
    """One connection to one server."""

    def __init__(self, *, encrypted: bool, lost: Callable[[Client], None], heard: Callable[[str], None]) -> None:
        super().__init__()
        self._ps = BoundedParser(self)
        self._encrypted = encrypted
        self._lost, self._heard = lost, heard
        self.said: str = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    def check(self) -> None:
        """Check that there is a connection, and that the server has refused nothing.

        nats-py takes an end for an answer, as when a certificate is refused, and closes after most errors, but later.
        """
        if self.last_error is not None or not self.is_connected:
            reason = str(self.last_error or "") or self.said or "the server closed the connection"
            raise errors.Error(reason)

    async def end(self) -> None:
        """Say that the connection has ended, or was none. Whoever waits for a PONG hears of it, too."""
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(errors.ConnectionClosedError())
                pong.exception()  # perhaps nobody waits
        self._lost(self)

    async def hear(self, error: Exception) -> None:
        """Hear of an error that belongs to no call: something that the server says, or that came of connecting."""
        before, self.said = self.said, " ".join(str(error).split())[:1000] or type(error).__name__
        if self.is_connected or self.said != before:  # nats-py says twice why it cannot connect
            self._heard(self.said)

    async def send(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish a message. Raises ``Unreachable`` if there is no connection.

        Where nats-py lets its caller wait, it would hide a cancellation: then a task of its own waits.
        """
        if not self.is_connected:
            raise Unreachable("the connection to NATS was lost")
        publishing = self.publish(subject, payload, reply, dict(headers) if headers else None)
        try:
            if self.pending_data_size + len(payload) < PENDING // 2:
                await publishing
            else:
                task = asyncio.create_task(publishing)
                self._keep(task)
                await asyncio.shield(task)
        except (errors.Error, OSError) as error:
            raise Unreachable(f"{subject}: {error}") from error

    def tell(self, subject: str, headers: Mapping[str, str]) -> None:
        """Publish a word, without waiting."""
        if self.is_connected:
            self.do(self.publish(subject, b"", "", dict(headers)))

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something in a task that ends with the connection at the latest. What it raises is ignored."""
        self._keep(asyncio.create_task(work))

    async def leave(self) -> None:
        """Say the last words, and close the connection, in bounded time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.close(), _CLOSE_SECONDS)

    def after_fork(self) -> None:
        """Close the child's copy of the socket."""
        writer = getattr(self._transport, "_bare_io_writer", None)
        if writer is not None:
            close_socket(writer.get_extra_info("socket"))

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has read all that was published and subscribed.

        nats-py writes its PING before what is pending. So a subscription would not be there when the PONG comes, and a
        drain would lose what the server still sends.
        """
        await self._flush_pending(force_flush=True)
        await super().flush(timeout)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What encrypts. nats-py would make one of its own for a server that asks for it."""
        if not self._encrypted:
            raise errors.Error("the server asks for TLS")
        context: ssl.SSLContext = super().ssl_context
        return context

    async def _select_next_server(self) -> None:
        """Forget what failed before there was a connection: nats-py tries once more, and keeps the first error."""
        await super()._select_next_server()
        self._err = None

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        """Refuse to parse long headers: it would hold the loop."""
        if headers and len(headers) > HEADERS_MAX:
            return {WORD: f"headers of more than {HEADERS_MAX} bytes"}
        parsed: dict[str, str] | None = await super()._process_headers(headers)
        return parsed

    def _connect_command(self) -> bytes:
        """Say no credentials to a server that does not encrypt, if it has to."""
        if self._encrypted and not self._server_info.get("tls_required"):
            raise errors.Error("the server does not ask for TLS; tls: false, or --no-tls, connects without it")
        command: bytes = super()._connect_command()
        return command

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it too


async def connect(place: Place, name: str, lost: Callable[[Client], None], heard: Callable[[str], None]) -> Client:
    """Connect to one of the servers. ``lost`` is called when the connection has ended, ``heard`` with errors.

    Raises ``Unreachable`` or ``Forbidden``, with the reason of each server in one line.
    """
    try:
        options = await place.read()
    except (OSError, ValueError) as error:
        raise Unreachable(f"NATS: {error}") from error
    reasons: dict[str, Exception] = {}
    for endpoint in random.sample(place.endpoints, len(place.endpoints)):
        scheme = "nats" if place.tls is None else "tls"
        try:
            return await _connect(f"{scheme}://{endpoint}", name, options, lost, heard)
        except (OSError, ValueError, errors.Error, TimeoutError, asyncio.IncompleteReadError) as error:
            reasons[endpoint] = error
    raise _failure(reasons)


async def _connect(
    server: str, name: str, options: dict[str, Any], lost: Callable[[Client], None], heard: Callable[[str], None]
) -> Client:
    client = Client(encrypted="tls" in options, lost=lost, heard=heard)
    try:
        async with asyncio.timeout(_WHOLE_SECONDS):
            await client.connect(server, name=name, error_cb=client.hear, closed_cb=client.end, **_OPTIONS, **options)
        client.check()
    except BaseException as error:
        await client.leave()
        if isinstance(error, errors.NoServersError) and client.said:
            raise errors.Error(client.said) from None
        raise
    watch_forks(client)
    return client


def _failure(reasons: dict[str, Exception]) -> KernelError:
    told = {place: " ".join(str(error).split()).removeprefix("nats: ")[:1000] for place, error in reasons.items()}
    text = "; ".join(f"{place}: {why or type(reasons[place]).__name__}" for place, why in told.items())
    refused = all(any(word in why.lower() for word in _REFUSED) for why in told.values())
    return (Forbidden if refused else Unreachable)(f"NATS at {text}", details={"servers": list(reasons)})
