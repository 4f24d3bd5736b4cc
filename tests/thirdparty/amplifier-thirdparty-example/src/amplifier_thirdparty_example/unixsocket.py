"""The transport ``unixsocket``: a module that somebody else runs, behind a Unix domain socket.

Both sides speak the JSON lines of the protocol's section 3, over one connection that all requests share.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import UNSET, Message, decode_message, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Notify

__all__ = ["open_transport"]

_PATH_BYTES = 103  # the longest path of a socket that every system takes


@hookimpl
def open_transport(descriptor: ModuleDescriptor, notify: Notify) -> UnixSocketConnection:
    """Check ``path``, and make a connection that is opened later."""
    for field in descriptor.transport:
        if field not in ("type", "path"):
            raise descriptor.misfit(f".{field}", "expected one of type, path")
    path = descriptor.transport.get("path")
    if not isinstance(path, str) or not path or not path.isprintable():
        raise descriptor.misfit(".path", f"expected the path of a socket, got {path!r}")
    full = str(descriptor.base / path)
    if len(full.encode()) > _PATH_BYTES:
        raise descriptor.misfit(".path", f"expected a path of at most {_PATH_BYTES} bytes, got {full!r}")
    return UnixSocketConnection(full, descriptor, notify)


class UnixSocketConnection:
    """One module. Its connection is opened by ``start``, and again by the first request after its end."""

    local = False  # nothing is started here

    def __init__(self, path: str, descriptor: ModuleDescriptor, notify: Notify) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self._path = path
        self._limit = descriptor.message_bytes
        self._notify = notify
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Connect. What was granted is the server's own affair."""
        await self._linked()

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Send one request and wait for its reply."""
        link = await self._linked()
        return await link.request(method, params, chunks)

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        async with self._opening:
            if self._link is not None:
                await self._link.close()

    async def _linked(self) -> _Link:
        async with self._opening:
            if self._closed:
                raise Unreachable("the module was unmounted")
            if self._link is None or self._link.ended:
                try:
                    streams = await asyncio.open_unix_connection(self._path, limit=self._limit)
                except OSError as error:
                    raise Unreachable(f"socket {self._path}: {error.strerror}") from error
                self._link = _Link(*streams, self._limit)
                self._link.task.add_done_callback(self._report_end)
                self._notify("module:start", {"socket": self._path})
            return self._link

    def _report_end(self, task: asyncio.Task[KernelError]) -> None:
        self._notify("module:exit", {"socket": self._path}, None if self._closed else task.result())


class _Link:
    """One connection, from its start to its end; ``task`` reads it, and says in the end why it ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        self._reader = reader
        self._writer = writer
        self._limit = limit
        self._waiting: dict[str, tuple[asyncio.Future[Message], Chunks | None]] = {}
        self._count = 0
        self.ended = False
        self.task = asyncio.create_task(self._read())

    async def request(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        self._count += 1
        request_id = f"r{self._count}"
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future, chunks
        self._writer.write(b'{"id":"%b","method":"%b","params":%b}\n' % (request_id.encode(), method.encode(), params))
        try:
            return await future
        except asyncio.CancelledError:
            self._writer.write(b'{"method":"cancel","params":{"id":"%b"}}\n' % request_id.encode())
            raise
        finally:
            del self._waiting[request_id]

    async def close(self) -> None:
        self._end(Unreachable("the module was unmounted"))
        await asyncio.wait((self.task,))

    async def _read(self) -> KernelError:
        failure: KernelError
        try:
            while True:
                self._received(decode_message(await self._reader.readuntil()))
        except asyncio.LimitOverrunError:
            failure = Internal(f"the server wrote a message of more than {self._limit} bytes (limits.message_bytes)")
        except ValueError as error:
            failure = Internal(f"the server broke its contract: {error}")
        except (asyncio.IncompleteReadError, OSError):
            failure = Unreachable("the server ended the connection")
        self._end(failure)
        return failure

    def _received(self, message: Message) -> None:
        future, chunks = self._waiting.get(message.id or "", (None, None))
        if future is None or future.done():
            return  # nobody waits any more
        if message.chunk is UNSET:
            future.set_result(message)
        elif chunks is not None:
            chunks.put(message.chunk, message.size)  # others share the connection: a slow reader can't hold it back

    def _end(self, failure: KernelError) -> None:
        """Fail what is in flight, each with an error of its own, and end the connection without waiting for anybody."""
        self.ended = True
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(type(failure)(failure.message))
        self._writer.transport.abort()
