"""A module over HTTP (protocol, section 4), as an ASGI application for any server.

Owns the mapping of requests and replies to HTTP. Sockets, TLS and processes are the server's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ._errors import ModuleError
from ._mailbox import Mailbox
from ._messages import failure
from ._service import Service, tell_stuck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ._channel import Channel
    from ._op import Op

    Scope = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

_HEALTH = b'{"status":"ok"}'
_JSON, _NDJSON = b"application/json", b"application/x-ndjson"


class _TooLargeError(Exception):
    pass


class Asgi:
    """The application. Each path that ends in ``/health``, ``/describe`` or ``/invoke`` is answered."""

    def __init__(self, name: str, ops: Mapping[str, Op], limits: Mapping[str, int], description: object) -> None:
        self._service = Service(name, ops, limits, lambda: tell_stuck(name))
        self._bare = {"health": _HEALTH, "describe": msgspec.json.encode(description)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI 3."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._answer(scope, receive, _Response(scope, send))

    async def _answer(self, scope: Scope, receive: Receive, response: _Response) -> None:
        method = str(scope["path"]).rpartition("/")[2]
        if method not in (*self._bare, "invoke"):
            await response.refuse(404, "unsupported_op", f"there is no {method[:200]!r}")
        elif scope["method"] != "POST":
            await response.refuse(405, "unsupported_op", "expected POST")
        else:
            try:
                body = await self._body(scope, receive)
            except _TooLargeError:
                await response.refuse(413, "bad_request", f"expected at most {self._service.limit:,} bytes")
                return
            if body is not None:
                told = self._bare.get(method)
                await (response.whole(told) if told else self._invoke(body, receive, response))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read the body; ``None`` if the caller is gone before its end."""
        told = dict(scope["headers"]).get(b"content-length", b"0")
        size, parts, more = int(told) if told.isdigit() else 0, [], True
        while more:
            if size > self._service.limit:
                raise _TooLargeError
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size, more = sum(map(len, parts)), message.get("more_body", False)
        return b"".join(parts)

    async def _invoke(self, body: bytes, receive: Receive, response: _Response) -> None:
        self._service.loop = asyncio.get_running_loop()
        channel = Mailbox(self._service.limit)
        gone = asyncio.create_task(_watch(receive, channel))
        try:
            self._service.invoke(body or b"{}", channel)
            await response.messages(channel)
        except OSError:  # some servers say so that the caller is gone
            channel.cancel()
        except asyncio.CancelledError:  # and others so
            channel.cancel()
            raise
        finally:
            gone.cancel()


class _Response:
    """The response to one request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._headers = [(name, value) for name, value in scope["headers"] if name == b"x-request-id"]

    async def refuse(self, status: int, code: str, problem: str) -> None:
        """Send an error with a status."""
        await self.whole(failure(ModuleError(code, problem), ""), status)

    async def whole(self, body: bytes, status: int = 200) -> None:
        """Send a body of JSON."""
        await self._start(status, _JSON, [(b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def messages(self, channel: Mailbox) -> None:
        """Send a reply as it is; with chunks before it, as a stream of lines."""
        message, last = await channel.next()
        if last:
            await self.whole(message)
            return
        await self._start(200, _NDJSON, [])
        while True:
            await self._send({"type": "http.response.body", "body": message + b"\n", "more_body": not last})
            if last:
                return
            message, last = await channel.next()

    async def _start(self, status: int, kind: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        told = [(b"content-type", kind), *headers, *self._headers]
        await self._send({"type": "http.response.start", "status": status, "headers": told})


async def _watch(receive: Receive, channel: Channel) -> None:
    """Cancel the request once its caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    channel.cancel()


async def _live(receive: Receive, send: Send) -> None:
    """Answer the start and the end of a server; the module has nothing to do for them."""
    for _ in ("startup", "shutdown"):
        await send({"type": f"{(await receive())['type']}.complete"})
