"""The connection to one module that is a gRPC service: each request of the kernel becomes a call.

Owns the channel and its options, and what a response has to be. Deadlines end a call by cancelling its task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from amplifier_core import Internal, Unreachable
from amplifier_core.hookspecs import (
    LARGE,
    UNSET,
    Connection,
    Message,
    NotJson,
    decode_message,
    decode_message_large,
    traceparent,
)

from ._message import NotProtobufError, decode, encode, is_serving
from ._status import broke_contract, status_error, unreachable
from ._trust import read_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement

    from ._fields import GrpcFields

_SERVICE = "amplifier.v1.Module"  # and the name for which its health is asked
_FRAME = 64  # bytes of protobuf around a message
_LATER = 0.25  # seconds after the kernel's deadline at which gRPC's own ends a call: the kernel's error says more
_METADATA_BYTES = 64 * 1024  # of a response
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small packed message could unpack to any size
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # it would be read from the environment, as the next one would
    ("grpc.address_http_proxy_enabled_addresses", ""),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # each module has a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.primary_user_agent", "amplifier-transport-grpc"),
)


class _Params(msgspec.Struct):
    """What of the parameters of ``invoke`` gRPC has a field of its own for."""

    deadline_ms: int | None = None


_read_params = msgspec.json.Decoder(_Params).decode


class GrpcConnection(Connection):
    """The connection to a gRPC service. A server that was started again is found by the next call."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: GrpcFields) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self.endpoints = fields.endpoints
        self._limit = descriptor.message_bytes
        self._fields = fields
        self._target = fields.target
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._closed = False

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - elsewhere
        """Make the channel. It connects at the first call, which is that of ``health``."""
        self._channel = channel = await self._open(
            [*_OPTIONS, ("grpc.max_receive_message_length", self._limit + _FRAME)]
        )
        self._calls = {name: channel.unary_unary(f"/{_SERVICE}/{name.title()}") for name in ("describe", "invoke")}
        self._calls["health"] = channel.unary_unary("/grpc.health.v1.Health/Check")
        self._calls["stream"] = channel.unary_stream(f"/{_SERVICE}/InvokeStream")

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Make one call and give its reply. Cancelling it cancels the call, which tells the module."""
        self._check_open()
        try:
            return await (self._health() if method == "health" else self._call(method, params, chunks))
        except grpc.aio.AioRpcError as error:
            raise status_error(self._target, error) from None
        except NotProtobufError as error:
            raise broke_contract(self._target, f"the response is no message of the service: {error}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise self._gone() from None

    async def close(self) -> None:
        """Close the channel. Calls in flight fail at once."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(grace=None)

    async def _open(self, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        tls = self._fields.tls
        if tls is None:
            return grpc.aio.insecure_channel(self._target, options)
        try:
            credentials = await asyncio.to_thread(read_credentials, tls)
        except OSError as error:
            raise unreachable(self._target, f"certificates: {error}") from error
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(self._target, credentials, options)

    async def _health(self) -> Message:
        if not is_serving(await self._calls["health"](encode(_SERVICE.encode()), metadata=self._fields.metadata)):
            raise unreachable(self._target, "its health is not SERVING")
        return Message(ok=True, result={"status": "ok"})

    async def _call(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        """Make the call of ``describe`` or ``invoke``, and read its reply."""
        left, metadata = _read_params(params).deadline_ms, self._fields.metadata
        timeout = None if left is None else left / 1000 + _LATER
        if (trace := traceparent(params)) is not None:
            metadata = (*metadata, ("traceparent", trace.decode()))
        request = encode(params)
        del params  # they may be large
        if method == "invoke" and chunks is not None:
            return await self._stream(self._calls["stream"](request, timeout=timeout, metadata=metadata), chunks)
        return self._reply(await self._read(await self._calls[method](request, timeout=timeout, metadata=metadata)))

    async def _stream(self, call: Any, chunks: Chunks) -> Message:
        """Pass each chunk on, and give the reply, which is the last message of the stream."""
        reply: Message | None = None
        try:
            async for data in call:
                if reply is not None:
                    raise broke_contract(self._target, "a message after the reply")
                message = await self._read(data)
                if message.chunk is UNSET:
                    reply = message
                elif not chunks.put(message.chunk, message.size):
                    await chunks.room()
        finally:
            call.cancel()
        if reply is None:
            raise broke_contract(self._target, "the stream ended without a final reply")
        return self._reply(reply)

    async def _read(self, data: bytes) -> Message:
        """Read one message, a large one in slices."""
        text = decode(data)
        try:
            return (
                await decode_message_large(text, self._limit)
                if len(text) > LARGE
                else decode_message(text, self._limit)
            )
        except NotJson as error:
            raise broke_contract(self._target, f"invalid JSON: {error}" if text else "an empty response") from None

    def _reply(self, message: Message) -> Message:
        if message.is_reply():
            return message
        raise broke_contract(self._target, "the response is none of the three shapes of section 2")

    def _check_open(self) -> None:
        if self._closed:
            raise self._gone()
        if not self._calls:
            raise Internal(f"{self._target}: a request before the start")

    def _gone(self) -> Unreachable:
        return unreachable(self._target, "the connection was closed")
