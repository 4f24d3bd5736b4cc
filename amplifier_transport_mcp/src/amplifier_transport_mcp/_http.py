"""A server elsewhere, under the SDK's client: MCP's streamable HTTP.

Owns the streams between the SDK's client and its HTTP transport. The transport owns what is sent and received.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from ._streams import IncomingStream, OutgoingStream
from ._transport import GuardedTransport

if TYPE_CHECKING:
    from amplifier_transport_http import HttpFields

    from ._correlator import Correlator

_HEADERS = {"accept-encoding": "identity", "user-agent": "amplifier-transport-mcp"}


class HttpStreams:
    """The context manager that the SDK's client enters for its two streams."""

    def __init__(self, fields: HttpFields, limit: int, correlator: Correlator) -> None:
        self._fields = fields
        self._correlator = correlator
        self._transport = GuardedTransport(fields, limit, correlator)
        self._stack = contextlib.AsyncExitStack()

    @property
    def stale(self) -> bool:
        """Whether the server has ended the session: the next request needs a new one."""
        return self._transport.session_ended.is_set()

    async def __aenter__(self) -> tuple[IncomingStream, OutgoingStream]:
        """Give the streams. Nothing is sent yet."""
        headers = {**_HEADERS, **self._fields.headers}
        client = httpx2.AsyncClient(transport=self._transport, headers=headers, timeout=None, trust_env=False)
        await self._stack.enter_async_context(client)
        streams = streamable_http_client(str(self._fields.url), http_client=client, max_sse_event_size=None)
        read, write = await self._stack.enter_async_context(streams)

        async def receive() -> SessionMessage:
            while True:
                await self._correlator.room()
                item: Any = await anext(read)  # never an exception: the SDK reads labels alone
                with contextlib.suppress(ValueError):  # noise: over HTTP nobody counts it
                    message = self._correlator.on_receive(*self._correlator.passage.unpack(item.message))
                    if message is not None:
                        return SessionMessage(message)

        async def send(item: SessionMessage) -> None:
            if isinstance(item.message, JSONRPCResponse | JSONRPCError):
                await self._transport.room()
            self._correlator.on_send(item.message)
            if isinstance(item.message, JSONRPCRequest):
                item.message = _QuietRequest.model_construct(item.message.model_fields_set, **dict(item.message))
            await write.send(item)

        return IncomingStream(receive), OutgoingStream(send)

    async def __aexit__(self, *error: object) -> None:
        """End the session, and close all connections."""
        await self._stack.aclose()


class _QuietRequest(JSONRPCRequest):
    """A request with a short text: the SDK makes one of each, at 2 ms a MiB, for a debug log that is off."""

    def __str__(self) -> str:
        return f"{self.method} {self.id}"
