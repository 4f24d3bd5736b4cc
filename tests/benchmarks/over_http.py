"""Calls over HTTP: the kernel beside a raw blocking socket, and beside the plain httpx client, on one server."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import subprocess
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
from modules import FAST_HTTP, descriptor, text_of
from rounds import Contender, at_once, blocking, compare, in_batches, sequential
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rounds import Pace

_SEQUENTIAL, _AT_ONCE = "HTTP, 200 B, sequential", "HTTP, 200 B, 32 at once, per request"
_CALLERS = 32
_READ = 64 * 1024
_ARGS = text_of(200)
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def rows(pace: Pace) -> list[Row]:
    """Measure one request after another, and many at once. Without the transport give nothing."""
    if not entry_points(group="amplifier_core.transports", name="http"):
        return [Row(path=path, note="amplifier-transport-http is not installed") for path in (_SEQUENTIAL, _AT_ONCE)]
    import httpx  # noqa: PLC0415 - comes with the transport

    with tempfile.TemporaryDirectory() as folder, server() as url, Raw(url, _CALLERS) as limit:
        # trust_env=False: no proxy of this machine is to be measured
        async with Kernel(event_log=Path(folder) / "log.jsonl") as kernel, httpx.AsyncClient(trust_env=False) as client:
            session = await kernel.session.create(Plan(goal="measure"))
            mounted = await session.mount("/mnt/tools", descriptor("echo", {"type": "http", "url": url}))
            ours = functools.partial(session.invoke, mounted["path"], "echo", _ARGS)
            body = {"op": "echo", "args": _ARGS}

            async def plain() -> Any:
                return (await client.post(f"{url}/invoke", json=body)).json()

            assert limit.call()["result"] == await ours() == (await plain())["result"] == _ARGS
            samples = await compare(
                (
                    Contender("limit", blocking(limit.call)),
                    Contender("ours", sequential(ours)),
                    Contender("plain", sequential(plain)),
                    Contender("limit at once", in_batches(limit.calls, _CALLERS), step=_CALLERS),
                    Contender("ours at once", at_once(ours, _CALLERS), step=_CALLERS),
                    Contender("plain at once", at_once(plain, _CALLERS), step=_CALLERS),
                ),
                pace,
            )
    return [
        Row.of(_SEQUENTIAL, samples, peers={"httpx": "plain"}, goal=Goal(7.0)),
        Row.of(
            _AT_ONCE,
            samples,
            limit="limit at once",
            ours="ours at once",
            peers={"httpx": "plain at once"},
            goal=Goal(3.0),
        ),
    ]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Give the URL of a server that does as little as one can, in a process of its own."""
    with subprocess.Popen(FAST_HTTP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.communicate()


class Raw:
    """The limit: ready requests, blocking sockets, and only as much HTTP as finds the end of a reply."""

    def __init__(self, url: str, callers: int) -> None:
        host, port = url.removeprefix("http://").split(":")
        body = orjson.dumps({"op": "echo", "args": _ARGS})
        head = f"POST /invoke HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self._request = f"{head}\r\n\r\n".encode() + body
        self._sockets = [socket.create_connection((host, int(port))) for _ in range(callers)]
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def call(self) -> Any:
        """Send one request and wait for its reply."""
        self._sockets[0].sendall(self._request)
        return _reply(self._sockets[0])

    def calls(self) -> list[Any]:
        """Send a request on each connection, and wait for all replies."""
        for each in self._sockets:
            each.sendall(self._request)
        return [_reply(each) for each in self._sockets]


def _reply(connection: socket.socket) -> Any:
    head, _, body = connection.recv(_READ).partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    assert length is not None
    while len(body) < int(length[1]):
        body += connection.recv(_READ)
    return orjson.loads(body)
