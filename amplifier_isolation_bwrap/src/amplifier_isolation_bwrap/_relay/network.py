"""The network of one confined process: what connects to a listener in its namespace is connected to the host outside.

Owns the bound on connections, the counts, and the end: none of it outlives the process for more than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from .addresses import RefusedError, Resolver, connect, parse_address
from .connection import Connection, set_reset
from .names import QUERY_MAX, answer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from .namespace import Opened

_DRAIN_SECONDS = 1.0  # for what the process had written before its end
_TELL_SECONDS = 0.05  # for connections that end with the process: then they are counted whole
_PAUSE_SECONDS = 0.1  # after which a connection is accepted again, when there was no descriptor for it
_AT_ONCE = 16  # datagrams in a turn of the loop
_QUESTIONERS = 8  # connections to the name server
_QUESTION_SECONDS = 10.0
_ERROR_MAX = 300  # characters


class Target:
    """One host and port, and what was counted there."""

    def __init__(self, host: str, port: int) -> None:
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.host, self.port = host, port
        self.refused = self.failed = 0
        self.last_error = ""
        self._connections: list[Connection] = []
        self._opened = self._sent = self._received = 0  # of connections that are over

    def open(self, connection: Connection) -> None:
        """Count a connection from now on."""
        self._connections.append(connection)

    def close(self, connection: Connection) -> None:
        """Keep the account of a connection, and not the connection."""
        self._connections.remove(connection)
        self._opened += 1
        self._sent += connection.inner.count
        self._received += connection.outer.count

    def counts(self) -> dict[str, Any]:
        """Give what there is to tell."""
        told: dict[str, Any] = {
            "opened": self._opened + len(self._connections),
            "refused": self.refused,
            "failed": self.failed,
            "sent": self._sent + sum(each.inner.count for each in self._connections),
            "received": self._received + sum(each.outer.count for each in self._connections),
            "last_error": self.last_error[:_ERROR_MAX],
        }
        return {name: value for name, value in told.items() if value}


class Network:
    """Relays the connections of one process, until ``sync`` or ``report`` is closed at its other end.

    The process holds the other end of ``sync``, and the kernel that of ``report``, which gets the counts at the end.
    """

    def __init__(self, opened: Opened, asked: Mapping[str, Any], sync: socket.socket, report: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._targets = [Target(host, port) for host, port, _ in asked["targets"]]
        self._names: dict[str, str] = asked["names"]
        self._most: int = asked["connections"]
        self._idle: float = asked["idle"]
        self._sync, self._report = sync, report
        self._resolver = Resolver()
        self._tasks: set[asyncio.Task[None]] = set()
        self._questioners: set[asyncio.Task[None]] = set()
        self._reading: set[socket.socket] = set()
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing of it is left."""
        self._ending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept connections from now on."""
        for end in (self._sync, self._report):
            end.settimeout(0)
            self._read(end, self.end)
        self._read(self._opened.datagrams, self._answer)
        self._read(self._opened.names, self._accept_questioner)
        self._listen()

    def end(self) -> None:
        """Accept nothing more, tell the counts, and give what was sent a moment to arrive."""
        if self._ending is None:
            for sock in list(self._reading):
                self._unread(sock)
            self._opened.close()
            self._sync.close()
            self._ending = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        for task in self._questioners:
            task.cancel()
        await self._drain(_TELL_SECONDS)
        self._tell()
        await self._drain(_DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        while left := self._tasks | self._questioners:
            await asyncio.wait(left)
        self.over.set_result(None)

    async def _drain(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _tell(self) -> None:
        counts = {target.name: told for target in self._targets if (told := target.counts())}
        with self._report, contextlib.suppress(OSError):
            self._report.send(json.dumps(counts).encode())

    # What the loop calls.

    def _listen(self) -> None:
        """Accept where there is room, unless it has ended. What connects meanwhile waits."""
        if self._ending is None and len(self._tasks) < self._most:
            for listener, target in zip(self._opened.listeners, self._targets, strict=True):
                self._read(listener, partial(self._accept, listener, target))

    def _accept(self, listener: socket.socket, target: Target) -> None:
        if len(self._tasks) >= self._most:  # another listener was ready in the same turn, and took the last place
            return
        inner = self._accepted(listener)
        if inner is None:
            return
        task = self._loop.create_task(self._relay(inner, target))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if len(self._tasks) >= self._most:
            for each in self._opened.listeners:
                self._unread(each)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._listen()

    def _accepted(self, listener: socket.socket) -> socket.socket | None:
        """Accept a connection; ``None`` if there is none, or no descriptor for it: then it is tried again later."""
        try:
            return listener.accept()[0]
        except BlockingIOError:
            return None
        except OSError:
            self._unread(listener)
            self._loop.call_later(_PAUSE_SECONDS, self._listen)
            return None

    async def _relay(self, inner: socket.socket, target: Target) -> None:
        inner.settimeout(0)
        try:
            outer = await self._connect(target)
        except BaseException:
            set_reset(inner)
            inner.close()
            raise
        if outer is None:
            set_reset(inner)
            inner.close()
            return
        connection = Connection(self._idle)
        target.open(connection)
        try:
            await connection.run(inner, outer)
        finally:
            target.close(connection)

    async def _connect(self, target: Target) -> socket.socket | None:
        """Connect to a target, and count what hinders it."""
        try:
            address = parse_address(target.host)
            addresses = await self._resolver.find(target.host, target.port) if address is None else [address]
            return await connect(addresses, target.port)
        except RefusedError as error:
            target.refused += 1
            target.last_error = str(error)
        except TimeoutError:
            target.failed += 1
            target.last_error = f"{target.host}: no answer from the resolver"
        except OSError as error:
            target.failed += 1
            target.last_error = str(error)
        return None

    def _answer(self) -> None:
        for _ in range(_AT_ONCE):
            with contextlib.suppress(OSError):
                query, peer = self._opened.datagrams.recvfrom(QUERY_MAX)
                if reply := answer(query, self._names):
                    self._opened.datagrams.sendto(reply, peer)
                continue
            return

    def _accept_questioner(self) -> None:
        inner = self._accepted(self._opened.names)
        if inner is None:
            return
        if len(self._questioners) >= _QUESTIONERS:
            inner.close()
            return
        task = self._loop.create_task(self._answer_stream(inner))
        self._questioners.add(task)
        task.add_done_callback(self._questioners.discard)

    async def _answer_stream(self, inner: socket.socket) -> None:
        """Answer the queries of one connection, each with its length before it."""
        reader, writer = await asyncio.open_connection(sock=inner, limit=QUERY_MAX)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
                async with asyncio.timeout(_QUESTION_SECONDS):
                    while True:
                        size = int.from_bytes(await reader.readexactly(2))
                        reply = answer(await reader.readexactly(size), self._names) if size <= QUERY_MAX else None
                        if reply is None:
                            return
                        writer.write(len(reply).to_bytes(2) + reply)
                        await writer.drain()
        finally:
            writer.transport.abort()

    def _read(self, sock: socket.socket, call: Callable[[], None]) -> None:
        if sock not in self._reading:
            self._reading.add(sock)
            self._loop.add_reader(sock, call)

    def _unread(self, sock: socket.socket) -> None:
        self._reading.discard(sock)
        self._loop.remove_reader(sock)
