"""A module as a gRPC server: the service ``amplifier.v1.Module``, the standard health and reflection.

Owns the mapping of requests and replies to calls. Ports, TLS and interceptors are the author's.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ._mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ._service import Service

_PACKAGE, _SERVICE = "amplifier.v1", "amplifier.v1.Module"
_FRAME = 64  # bytes of protobuf around a message


async def make_server(service: Service, description: object, options: Mapping[str, Any]) -> grpc.aio.Server:
    """Make a server that is not started."""
    service.loop = asyncio.get_running_loop()
    sizes = [("grpc.max_receive_message_length", service.limit + _FRAME), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(**{**options, "options": [*sizes, *(options.get("options") or ())]})
    calls = _Calls(service, b'{"ok":true,"result":%b}' % msgspec.json.encode(description))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, _handlers(calls)),))
    states = health.aio.HealthServicer()
    await states.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    names = (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, _pool())
    return server


class _Calls:
    """The three calls of the service: parameters and messages are JSON."""

    def __init__(self, service: Service, description: bytes) -> None:
        self._service = service
        self._described = description

    async def describe(self, _params: bytes, _context: object) -> bytes:
        """Describe the module."""
        return self._described

    async def invoke(self, params: bytes, context: object) -> bytes:
        """Give the reply alone."""
        reply = b""
        async for message in self.invoke_stream(params, context):
            reply = message  # in place of a chunk
        return reply

    async def invoke_stream(self, params: bytes, _context: object) -> AsyncIterator[bytes]:
        """Give the chunks, and the reply last."""
        mailbox, last = Mailbox(self._service.limit), False
        try:
            self._service.invoke(params or b"{}", mailbox)
            while not last:
                message, last = await mailbox.next()
                yield message
        finally:
            mailbox.cancel()


def _handlers(calls: _Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    types: list[Any] = [GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS]
    request, response = types
    both = {
        "request_deserializer": lambda data: request.FromString(data).params,
        "response_serializer": lambda text: response(message=text).SerializeToString(),
    }
    return {
        "Describe": grpc.unary_unary_rpc_method_handler(calls.describe, **both),
        "Invoke": grpc.unary_unary_rpc_method_handler(calls.invoke, **both),
        "InvokeStream": grpc.unary_stream_rpc_method_handler(calls.invoke_stream, **both),
    }


_FIELDS = {"Request": "params", "Response": "message"}
_METHODS = {"Describe": False, "Invoke": False, "InvokeStream": True}  # whether the response is a stream


@cache
def _pool() -> DescriptorPool:
    """Make the descriptions that reflection gives: module.proto of amplifier-transport-grpc, and the standard ones."""
    file = FileDescriptorProto(name="amplifier/v1/module.proto", package=_PACKAGE, syntax="proto3")
    for name, field in _FIELDS.items():
        kind = {"type": FieldDescriptorProto.TYPE_BYTES, "label": FieldDescriptorProto.LABEL_OPTIONAL}
        file.message_type.add(name=name).field.add(name=field, number=1, **kind)
    methods = file.service.add(name="Module").method
    for name, streams in _METHODS.items():
        types = {"input_type": f".{_PACKAGE}.Request", "output_type": f".{_PACKAGE}.Response"}
        methods.add(name=name, server_streaming=streams, **types)
    pool = DescriptorPool()
    for each in (
        file.SerializeToString(),
        health_pb2.DESCRIPTOR.serialized_pb,
        reflection_pb2.DESCRIPTOR.serialized_pb,
    ):
        pool.AddSerializedFile(each)
    return pool
