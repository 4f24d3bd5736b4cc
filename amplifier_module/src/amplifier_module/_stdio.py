"""A module over STDIO (protocol, section 3): a request a line on stdin, messages on stdout.

Owns both descriptors, the lines, and the end of stdin.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from ._channel import Channel
from ._errors import ModuleError
from ._messages import failure, read
from ._service import Service, tell_stuck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._op import Op

_READ_BYTES = 64 * 1024
_IN_PROGRESS_MAX = 16_384  # requests
_HELD_MAX = 8  # times the largest message: what all requests in progress may hold
_TO_FINISH = 0.5  # seconds after the end of stdin in which requests may finish
_TO_UNWIND = 0.2  # seconds after that in which cancelled ones may
_TO_EXIT = 0.95  # seconds after the end of stdin at which the process ends, whatever still runs
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*("[^"\\]{1,256}"|-?\d{1,18})')
_HEALTH = b'{"ok":true,"result":{"status":"ok"}}'


class Request(msgspec.Struct):
    """One line of stdin."""

    method: str
    id: str | int | None = None
    params: Raw = Raw(b"{}")


class Cancel(msgspec.Struct):
    """The parameters of ``cancel``."""

    id: str | int


class Lines:
    """The lines of a stream of bytes. Of one that is too long only the beginning is kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Take bytes, and give each line that they end, with its size."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield b"".join(self._parts), self._size
            self._parts, self._size = [], 0
        self._add(rest)

    def _add(self, part: bytes) -> None:
        if part and self._size <= self._limit:
            self._parts.append(part)
        elif part and len(self._parts) > 1:
            del self._parts[1:]  # the first has the id
        self._size += len(part)


class Stdio:
    """The real stdin and stdout of this process, which nothing else of it can reach from now on.

    File descriptor 1 becomes stderr, so that what is printed, in C too, is no protocol; descriptor 0 is empty.
    """

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        if sys.platform == "win32":  # pragma: no cover
            import msvcrt  # noqa: PLC0415 - it is there alone

            for each in (self._in, self._out):
                msvcrt.setmode(each, os.O_BINARY)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.flush()  # what was printed before, to stderr now
            sys.stdout = os.fdopen(1, "w", 1, "utf-8", "backslashreplace", closefd=False)
        self._broken = False

    def read(self) -> bytes:
        """Wait for bytes; none at the end."""
        try:
            return os.read(self._in, _READ_BYTES)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Write all of it. Once nobody reads, nothing is written: the end of stdin follows."""
        view = memoryview(data)
        try:
            while view and not self._broken:
                view = view[os.write(self._out, view) :]
        except OSError:
            self._broken = True


class _Request(Channel):
    """The channel of one request."""

    def __init__(self, server: Server, key: str | int, size: int) -> None:
        super().__init__()
        self._server = server
        self._start = b'{"id":%b,' % msgspec.json.encode(key)
        self.key = key
        self.size = size

    async def drain(self) -> None:
        import asyncio  # noqa: PLC0415 - a module without async functions starts without it

        await asyncio.sleep(0)  # what was sent is in the pipe

    def _send(self, message: bytes, *, last: bool) -> None:
        self._server.send(b"%b%b\n" % (self._start, message[1:]))
        if last:
            self._server.finished(self)


class Server:
    """Serves one module until the end of stdin."""

    def __init__(self, name: str, ops: Mapping[str, Op], limits: Mapping[str, int], description: object) -> None:
        self._name = name
        self._service = Service(name, ops, limits, self._stuck)
        self._described = b'{"ok":true,"result":%b}' % msgspec.json.encode(description)
        self._requests: dict[str | int, _Request] = {}
        self._held = 0
        self._idle = threading.Condition()
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Answer requests until the end of stdin, and for half a second more. Then what still runs is cancelled."""
        self._stdio = Stdio()
        if not self._service.needs_loop:
            self._read()
            return
        import asyncio  # noqa: PLC0415 - a module without async functions starts without it

        with asyncio.Runner() as runner:
            runner.run(self._serve_beside_loop())

    async def _serve_beside_loop(self) -> None:
        import asyncio  # noqa: PLC0415 - as above

        self._service.loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def work() -> None:
            self._read()
            self._service.loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=work, name="stdin", daemon=True).start()
        await ended.wait()

    def send(self, line: bytes) -> None:
        """Write one line; lines of several threads do not mix."""
        with self._writing:
            self._stdio.write(line)

    def finished(self, request: _Request) -> None:
        """Forget a request that has its reply."""
        with self._idle:
            if self._requests.get(request.key) is request:  # its id may be in use again
                del self._requests[request.key]
            self._held -= request.size
            if not self._requests:
                self._idle.notify_all()

    def _read(self) -> None:
        lines = Lines(self._service.limit)
        while data := self._stdio.read():
            for line, size in lines.feed(data):
                self._take(line, size)
        self._end()

    def _take(self, line: bytes, size: int) -> None:
        if size > self._service.limit:
            told = f"expected a message of at most {self._service.limit:,} bytes, got {size:,}"
            self._refuse(line, ModuleError("bad_request", told))
        elif not line.isspace() and line:
            try:
                request = read(line, Request, "request")
            except ModuleError as error:
                self._refuse(line, error)
            else:
                self._answer(request, size)

    def _answer(self, request: Request, size: int) -> None:
        if request.id is None:
            if request.method == "cancel":
                self._cancel(request.params)
            return
        start = b'{"id":%b,' % msgspec.json.encode(request.id)
        if request.method == "invoke":
            self._invoke(request, request.id, size)
        elif request.method == "health":
            self.send(b"%b%b\n" % (start, _HEALTH[1:]))
        elif request.method == "describe":
            self.send(b"%b%b\n" % (start, self._described[1:]))
        else:
            unknown = ModuleError("unsupported_op", f"there is no method {request.method[:200]!r}")
            self.send(b"%b%b\n" % (start, failure(unknown, "")[1:]))

    def _invoke(self, request: Request, key: str | int, size: int) -> None:
        channel = _Request(self, key, size)
        with self._idle:
            before = self._requests.get(key)
            if before is not None and not before.answered:
                self._complain(f"two requests have the id {key!r}")
                return
            full = len(self._requests) >= _IN_PROGRESS_MAX or self._held > _HELD_MAX * self._service.limit
            self._requests[key] = channel
            self._held += size
        if full:
            channel.finish(failure(ModuleError("busy", f"{self._name} has too many requests in progress"), ""))
        else:
            self._service.invoke(request.params, channel)

    def _cancel(self, params: Raw) -> None:
        try:
            key = read(params, Cancel, "params").id
        except ModuleError as error:
            self._complain(f"cancel: {error.message}")
            return
        with self._idle:
            channel = self._requests.get(key)
        if channel is not None:
            channel.cancel()

    def _refuse(self, line: bytes, error: ModuleError) -> None:
        """Answer a line that is no request, if it says which one it is."""
        named = _ID.match(line[:1024])
        if named is None:
            self._complain(f"stdin: {error.message}")
        else:
            self.send(b'{"id":%b,%b\n' % (named[1], failure(error, "")[1:]))

    def _complain(self, problem: str) -> None:
        sys.stderr.write(f"{self._name}: {problem}\n")
        sys.stderr.flush()

    def _end(self) -> None:
        """Let requests finish, cancel the rest, and see to it that the process ends within a second."""
        timer = threading.Timer(_TO_EXIT, os._exit, (0,))
        timer.daemon = True
        timer.start()
        with self._idle:
            self._idle.wait_for(lambda: not self._requests, _TO_FINISH)
            left = list(self._requests.values())
        for channel in left:
            channel.cancel()
        if left:
            time.sleep(_TO_UNWIND)

    def _stuck(self) -> None:
        """End the process, so that the kernel starts another one."""
        tell_stuck(self._name)  # pragma: no cover - coverage does not outlive the next line
        os._exit(1)  # pragma: no cover


def serve(name: str, ops: Mapping[str, Op], limits: Mapping[str, int], description: Any) -> None:
    """Serve a module over STDIO until the end of stdin."""
    Server(name, ops, limits, description).serve()
