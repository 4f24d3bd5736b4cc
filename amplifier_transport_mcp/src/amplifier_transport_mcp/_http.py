"""A server elsewhere, under the SDK's client: MCP's streamable HTTP.

Owns the streams between the SDK's client and its HTTP transport. The transport owns what is sent and received.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp_types import JSONRPCRequest

from ._exchange import SessionEnded
from ._transport import GuardedTransport

if TYPE_CHECKING:
    from mcp.shared.message import SessionMessage

    from amplifier_transport_http import HttpFields

    from ._traffic import Traffic

__all__ = ["HttpStreams", "SessionEnded"]

_HEADERS = {"accept-encoding": "identity", "user-agent": "amplifier-transport-mcp"}


class HttpStreams:
    """The context manager that the SDK's client enters for its two streams."""

    def __init__(self, fields: HttpFields, limit: int, traffic: Traffic) -> None:
        self._fields = fields
        self._traffic = traffic
        self._transport = GuardedTransport(fields, limit, traffic)
        self._stack = contextlib.AsyncExitStack()

    @property
    def stale(self) -> bool:
        """Whether the server has ended the session: the next request needs a new one."""
        return self._transport.session_ended.is_set()

    async def __aenter__(self) -> tuple[_Incoming, _Outgoing]:
        """Give the streams. Nothing is sent yet."""
        headers = {**_HEADERS, **self._fields.headers}
        client = httpx2.AsyncClient(transport=self._transport, headers=headers, timeout=None, trust_env=False)
        await self._stack.enter_async_context(client)
        streams = streamable_http_client(str(self._fields.url), http_client=client, max_sse_event_size=None)
        read, write = await self._stack.enter_async_context(streams)
        return _Incoming(read, self._traffic), _Outgoing(write, self._traffic)

    async def __aexit__(self, *error: object) -> None:
        """End the session, and close all connections."""
        await self._stack.aclose()


class _Stream:
    """A stream of the SDK's transport, on its way to or from the SDK's client."""

    def __init__(self, inner: Any, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Incoming(_Stream):
    """The messages that came, without those that the SDK's client does not need."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            item: SessionMessage | Exception = await anext(self._inner)
            if isinstance(item, Exception) or self._traffic.wanted(item.message):
                return item

    receive = __anext__  # what a stream has; the SDK iterates


class _Outgoing(_Stream):
    """The messages to send. The correlator learns here which task sends a request."""

    async def send(self, item: SessionMessage) -> None:
        self._traffic.sending(item.message)
        if isinstance(item.message, JSONRPCRequest):
            item.message = _QuietRequest.model_construct(item.message.model_fields_set, **dict(item.message))
        await self._inner.send(item)


class _QuietRequest(JSONRPCRequest):
    """A request with a short text: the SDK makes one of each, at 2 ms a MiB, for a debug log that is off."""

    def __str__(self) -> str:
        return f"{self.method} {self.id}"
