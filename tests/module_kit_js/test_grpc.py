"""A module of the kit for Node as a gRPC server: under the real kernel, and with the trade's client for health."""

import subprocess
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.module_kit.test_grpc import (
    described,
    everything,
    test_a_cancelled_call_stops_its_function,
    test_calls_chunks_errors_and_system_calls,
    test_it_conforms,
    test_many_at_once_and_large_ones,
)
from tests.npm import installed

__all__ = [
    "described",
    "everything",
    "test_a_cancelled_call_stops_its_function",
    "test_calls_chunks_errors_and_system_calls",
    "test_it_conforms",
    "test_many_at_once_and_large_ones",
]

pytestmark = [pytest.mark.usefixtures("grpc_is_up"), pytest.mark.newest]  # it is the same on each Python

INVOKE = "/amplifier.v1.Module/Invoke"
SERVING, SERVICE_UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


@pytest.fixture
def address(command):
    """Serve the module in a process of its own, and give HOST:PORT."""
    words = [*command, "grpc", str(installed("grpc-js", ("@grpc/grpc-js@1",)))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        server.communicate(timeout=30)


@pytest.fixture
async def channel(address):
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def test_health_is_the_standard_one(channel):
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", "amplifier.v1.Module"):
        asked = health_pb2.HealthCheckRequest(service=name)
        assert (await health.Check(asked)).status == SERVING
        assert (await health.Watch(asked).read()).status == SERVING
    other = health_pb2.HealthCheckRequest(service="other")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(other)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert (await health.Watch(other).read()).status == SERVICE_UNKNOWN


ECHO = b'{"op":"echo","args":{"value":1}}'
FIELD = b"\x0a%c%b" % (len(ECHO), ECHO)
REQUESTS = {
    "field 1": (FIELD, b'{"ok":true,"result":1}'),
    "fields that it does not know": (b"\x10\xff\x01" + FIELD + b"\x19abcdefgh\x22\x02ab\x2dabcd", b'"result":1'),
    "nothing": (b"", b"params.op: expected a value, got nothing"),
    "no JSON": (b"\x0a\x01{", b'"code":"bad_request"'),
}


@pytest.mark.parametrize(("request_", "says"), REQUESTS.values(), ids=REQUESTS)
async def test_single_requests(channel, request_, says):
    assert says in await channel.unary_unary(INVOKE)(request_)


@pytest.mark.parametrize("request_", [FIELD[:-1], b"\x0a", b"\x0a\xff", b"\x0b\x01"])
async def test_what_is_no_protobuf_is_refused(channel, request_):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(INVOKE)(request_)
    assert raised.value.code() == grpc.StatusCode.INTERNAL


async def test_a_stream_waits_for_its_reader(channel, everything):
    """Meanwhile others are answered."""
    asked = b'{"op":"stream","args":{"to":400,"size":1000000}}'
    stream = channel.unary_stream("/amplifier.v1.Module/InvokeStream")(b"\x0a%c%b" % (len(asked), asked))
    assert len(await anext(aiter(stream))) > 1_000_000
    assert await everything("nap", {"seconds": 0.5})
    rest = [message[:20] async for message in stream]
    assert len(rest) == 400
    assert b'"ok":true' in rest[-1]
