"""A module of the kit as a gRPC server: the real kernel, and the clients of the trade for health and reflection."""

import asyncio
import subprocess
import sys
from typing import Any, cast

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.module_kit.conftest import EVERYTHING
from tests.module_kit.everything import module

from amplifier_core import BadRequest, ModuleDescriptor, Timeout, UnsupportedOp
from amplifier_core.testing import check_module
from amplifier_module import Module

pytestmark = pytest.mark.usefixtures("grpc_is_up")
PATH = "/mnt/orchestrators/everything"


@pytest.mark.usefixtures("traced")
def test_without_its_extra_it_says_what_to_install():
    source = "import sys; sys.modules['grpc'] = None; import asyncio; from amplifier_module import Module; "
    source += "asyncio.run(Module('m').grpc())"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    told = "ImportError: a gRPC server needs grpcio: pip install 'amplifier-module[grpc]'"
    assert done.stderr.splitlines()[-1] == told


@pytest.fixture
def address(traced):
    """Serve the module in a process of its own, and give HOST:PORT."""
    with subprocess.Popen(
        [sys.executable, EVERYTHING, "grpc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        server.communicate(timeout=30)


@pytest.fixture
def described(address):
    transport = {"type": "grpc", "target": f"dns:///{address}", "tls": False}
    return ModuleDescriptor.from_mapping({**module.descriptor(), "transport": transport})


@pytest.fixture
async def everything(session, described, approve):
    await session.register_hook("policy:request", approve, priority=1)
    await session.mount("/mnt/orchestrators", described)

    async def invoke(op, args=None, **options):
        return await session.invoke(PATH, op, args or {}, **options)

    return invoke


async def test_it_conforms(described):
    examples: dict = {"count": {"text": "a b"}, "stream.async": {"to": 3}, "steps": {"paths": ["/mnt/tools/x"]}}
    checks = await check_module(described, examples)
    assert [check for check in checks if check.problem] == []


async def test_calls_chunks_errors_and_system_calls(session, everything, events):
    assert await everything("count", {"text": "a b"}) == {"words": 2}
    with pytest.raises(BadRequest, match="args.text: expected a value, got nothing"):
        await everything("count")
    for op in ("stream", "stream.async"):
        async with session.stream(PATH, op, {"to": 3}) as stream:
            assert [chunk["n"] async for chunk in stream] == [1, 2, 3]
        assert await stream.result() == 3
        assert await everything(op, {"to": 3}) == 3
    for op in ("steps", "steps.stateless"):
        assert await everything(op, {"paths": ["/mnt/tools/x"]}) == ["bad_request", "bad_request"]
    assert len(events("kit:step")) == 4


async def test_a_cancelled_call_stops_its_function(everything):
    for op in ("nap", "wait", "stream"):
        with pytest.raises(Timeout):
            await everything(op, {"to": 10**9, "pause": 0.01} if op == "stream" else {"seconds": 30}, timeout=0.5)
    assert await everything("count", {"text": ""}) == {"words": 0}


async def test_many_at_once_and_large_ones(everything):
    assert await asyncio.gather(*(everything("echo", {"value": n}) for n in range(100))) == list(range(100))
    text = "x" * 20_000_000
    assert await everything("echo", {"value": text}) == text


async def test_health_and_reflection_are_the_standard_ones(address):
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "amplifier.v1.Module"):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="amplifier.v1.Module"),
        ]
        listed, file = [reply async for reply in reflection.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {"amplifier.v1.Module", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    found = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert [method.name for method in found.service[0].method] == ["Describe", "Invoke", "InvokeStream"]
    assert [message.field[0].name for message in found.message_type] == ["params", "message"]


async def test_options_are_those_of_a_server(session, approve):
    small = Module("small", limits={"message_bytes": 4096})

    @small.op
    def echo(value: str) -> str:
        return value

    server = await small.grpc(maximum_concurrent_rpcs=5, options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = {"type": "grpc", "target": f"dns:///127.0.0.1:{port}", "tls": False}
    await session.mount("/mnt/tools", {"name": "small", "kind": "tool", "capabilities": [], "transport": transport})
    assert await session.invoke("/mnt/tools/small", "echo", {"value": "x"}) == "x"
    with pytest.raises(BadRequest, match="larger than max"):
        await session.invoke("/mnt/tools/small", "echo", {"value": "x" * 5000})
    with pytest.raises(UnsupportedOp, match="it has echo"):
        await session.invoke("/mnt/tools/small", "nothing", {})
    await server.stop(None)
