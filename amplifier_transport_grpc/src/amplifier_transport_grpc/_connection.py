"""The connection to one module that is a gRPC service: each request of the kernel becomes a call.

Owns the channel and its options, and what a response has to be. Deadlines end a call by cancelling its task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from amplifier_core import Internal, Unreachable
from amplifier_core.hookspecs import LARGE, Connection, Message, decode_message, decode_message_large

from ._message import decode, encode
from ._status import failed, refused_unseen, status_error
from ._trust import read_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement

    from ._fields import GrpcFields

_SERVICE = "amplifier.v1.Module"  # and the name for which its health is asked
_SERVING = b"\x08\x01"  # how a `HealthCheckResponse` begins that says so
_FRAME = 64  # bytes of protobuf around a message
_LATER = 0.25  # seconds after the kernel's deadline at which gRPC's own ends a call: the kernel's error says more
_CLOSED = "the connection is closed"
_PAUSES = (0.01, 0.04, 0.16)  # seconds before a call that was refused unseen is made again
_METADATA_BYTES = 64 * 1024  # of a response
_OPTIONS = (
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small packed message could unpack to any size
    ("grpc.enable_retries", 0),  # they have no bound: a server that is always about to leave costs a whole processor
    ("grpc.enable_http_proxy", 0),  # it would be read from the environment, as the next one would
    ("grpc.address_http_proxy_enabled_addresses", ""),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # each module has a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class _Params(msgspec.Struct, gc=False):
    """What of the parameters of ``invoke`` gRPC has a field of its own for."""

    deadline_ms: int | None = None
    request_id: str = ""
    span_id: str = ""


class GrpcConnection(Connection):
    """The connection to a gRPC service. A server that was started again is found by the next call."""

    local = False

    def __init__(self, descriptor: ModuleDescriptor, fields: GrpcFields) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith(("sys:", "x-")))
        self.endpoints = fields.endpoints
        self._limit, self._target = descriptor.message_bytes, fields.target
        self._fields = fields
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}  # none: it is not open

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:  # noqa: ARG002 - elsewhere
        """Make the channel. It connects at the first call, which is that of ``health``."""
        self._channel = channel = await self._open()
        self._calls = {name: channel.unary_unary(f"/{_SERVICE}/{name.title()}") for name in ("describe", "invoke")}
        self._calls["health"] = channel.unary_unary("/grpc.health.v1.Health/Check")
        self._calls["stream"] = channel.unary_stream(f"/{_SERVICE}/InvokeStream")

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Make one call and give its reply. Cancelling it cancels the call, which tells the module.

        A call is made again, three times at most, only if the server has told that it was not looked at.
        """
        try:
            for pause in _PAUSES:
                try:
                    return await self._ask(method, params, chunks)
                except grpc.aio.AioRpcError as error:
                    if not refused_unseen(error):
                        raise
                await asyncio.sleep(pause)
            return await self._ask(method, params, chunks)
        except grpc.aio.AioRpcError as error:
            raise status_error(self._target, error) from None
        except asyncio.CancelledError:
            if self._calls or ((task := asyncio.current_task()) is not None and task.cancelling()):
                raise
            raise failed(Unreachable, self._target, _CLOSED) from None

    async def close(self) -> None:
        """Close the channel. Calls in flight fail at once."""
        self._calls = {}
        if self._channel is not None:
            await self._channel.close(grace=None)

    async def _open(self) -> grpc.aio.Channel:
        tls, options = self._fields.tls, [*_OPTIONS, ("grpc.max_receive_message_length", self._limit + _FRAME)]
        if tls is None:
            return grpc.aio.insecure_channel(self._target, options)
        try:
            credentials = await asyncio.to_thread(read_credentials, tls)
        except OSError as error:
            raise failed(Unreachable, self._target, f"certificates: {error}") from error
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(self._target, credentials, options)

    async def _ask(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        if not self._calls:
            raise failed(Unreachable, self._target, _CLOSED)
        return await (self._health() if method == "health" else self._call(method, params, chunks))

    async def _health(self) -> Message:
        health = await _reply(self._calls["health"](encode(_SERVICE.encode()), metadata=self._fields.metadata))
        if not (health or b"").startswith(_SERVING):
            raise failed(Unreachable, self._target, "its health is not SERVING")
        return Message(ok=True, result={"status": "ok"})

    async def _call(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        """Make the call of ``describe`` or ``invoke``, and read its reply."""
        told, metadata = msgspec.json.decode(params, type=_Params), self._fields.metadata
        timeout = None if told.deadline_ms is None else told.deadline_ms / 1000 + _LATER
        if told.request_id:
            metadata = (*metadata, ("traceparent", f"00-{told.request_id}-{told.span_id}-01"))
        request = encode(params)
        del params  # they may be large
        if method == "invoke" and chunks is not None:
            return await self._stream(self._calls["stream"](request, timeout=timeout, metadata=metadata), chunks)
        return await self._read(await _reply(self._calls[method](request, timeout=timeout, metadata=metadata)))

    async def _stream(self, call: Any, chunks: Chunks) -> Message:
        """Pass each chunk on, and give the reply, which is the last message of the stream."""
        message = reply = None
        try:
            async for data in call:
                if reply is not None:
                    raise failed(Internal, self._target, "a message after the reply")
                message = await self._read(data, chunk=True)
                if message.chunk is msgspec.UNSET:
                    reply = message
                elif not chunks.put(message.chunk, message.size):
                    await chunks.room()
        except grpc.aio.AioRpcError as error:
            if message is None:
                raise
            raise status_error(self._target, error) from None  # whatever it says: this call was looked at
        finally:
            call.cancel()
        if reply is None:
            raise failed(Internal, self._target, "the stream ended without a final reply")
        return reply

    async def _read(self, data: bytes | None, *, chunk: bool = False) -> Message:
        """Read one message, a large one in slices: a reply, or perhaps a ``chunk``."""
        try:
            text, limit = decode(data or b""), self._limit
            message = await decode_message_large(text, limit) if len(text) > LARGE else decode_message(text, limit)
        except ValueError as error:
            raise failed(Internal, self._target, f"invalid message: {error}") from None
        if message.is_reply() or (chunk and message.chunk is not msgspec.UNSET):
            return message
        raise failed(Internal, self._target, "the response is none of the three shapes of section 2")


async def _reply(call: Any) -> Any:
    """Wait for a unary call in a future of our own: gRPC's task would lose the message of a cancellation."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        call.cancel()  # which does nothing to one that has ended
    return await call
