"""Servers that break gRPC, or the contract of a module's service."""

import asyncio
import gzip
import json

import pytest
from tests.gap import LoopGap
from tests.grpc_transport.raw import HEADERS, TRAILERS, frame
from tests.grpc_transport.servers import descriptor, message, ok

from amplifier_core import Internal, KernelError, Timeout, Unreachable
from amplifier_core.hookspecs import Chunks

MIB = 1 << 20


def params(op="bad", **args):
    return json.dumps({"op": op, "args": args}).encode()


BROKEN = {
    "no message": ((), "expected field 1"),
    "an empty message": ((b"",), "expected field 1"),
    "no protobuf": ((b"\xff\xff\xff",), "expected field 1"),
    "a field of another number": ((b"\x12\x00",), "expected field 1"),
    "two fields": ((ok(1) + ok(2),), "expected field 1"),
    "a size that does not end": ((b"\x0a\xff\xff\xff\xff\xff\xff",), "expected field 1"),
    "a field without a size": ((b"\x0a",), "expected field 1"),
    "a field that is cut": ((b"\x0a\x05{}",), "expected field 1"),
    "no JSON": ((b"\x0a\x03{x}",), "invalid message"),
    "no object": ((b"\x0a\x02[]",), "invalid message"),
    "no reply": ((message(result=1),), "none of the three shapes"),
    "ok and an error": ((message(ok=True, result=1, error={"code": "x", "message": "y"}),), "three shapes"),
    "a chunk alone": ((message(chunk=1),), "none of the three shapes"),
    "deep": ((b"\x0a\xd0\x0f" + b"[" * 2000,), "invalid message"),
}


@pytest.mark.parametrize(("messages", "says"), BROKEN.values(), ids=BROKEN)
async def test_a_response_that_is_no_reply_fails_its_call_alone(raw, connect, messages, says):
    answers = [messages, (ok("fine"),)]
    connection = await connect(await raw(lambda call: call.answer(*answers.pop(0))))
    with pytest.raises(Internal, match=says):
        await connection.request("invoke", params())
    assert (await connection.request("invoke", params())).result == "fine"


async def test_two_messages_on_a_unary_call_end_with_the_deadline(raw, session):
    server = await raw(lambda call: call.answer(ok(1), *([ok(2)] if call.path.endswith("Invoke") else [])))
    await session.mount("/mnt/tools", descriptor(server.target))
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/m", "x", {}, timeout=0.5)
    async with session.stream("/mnt/tools/m", "x", {}, timeout=5) as stream:
        assert await stream.result() == 1


STREAMS = {
    "no reply": ((message(chunk=1),), "ended without a final reply"),
    "nothing": ((), "ended without a final reply"),
    "a chunk after the reply": ((ok(1), message(chunk=1)), "a message after the reply"),
    "two replies": ((ok(1), ok(2)), "a message after the reply"),
    "a chunk and a reply in one": ((message(chunk=1, ok=True, result=1),), "invalid message"),
}


@pytest.mark.parametrize(("messages", "says"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_that_breaks_the_contract_is_told_at_once(raw, connect, messages, says):
    connection = await connect(await raw(lambda call: call.answer(*messages)))
    with pytest.raises(Internal, match=says):
        await connection.request("invoke", params(), Chunks())


async def test_a_stream_that_goes_on_after_its_reply_is_not_waited_for(raw, connect):
    async def invoke(call):
        await call.headers()
        await call.data(frame(ok(1)))
        while True:
            await call.data(frame(message(chunk="x" * 1000)))

    connection = await connect(await raw(invoke))
    async with asyncio.timeout(5):
        with pytest.raises(Internal, match="a message after the reply"):
            await connection.request("invoke", params(), Chunks())


async def test_a_message_beyond_the_bound_is_refused(raw, connect):
    async def invoke(call):
        await call.answer(ok("x" * 2 * MIB))

    connection = await connect(await raw(invoke), limits={"message_bytes": MIB})
    for chunks in (None, Chunks()):
        with pytest.raises(Internal, match="larger than max") as raised:
            await connection.request("invoke", params(), chunks)
        assert raised.value.details["grpc_status"] == "RESOURCE_EXHAUSTED"


async def test_a_packed_message_is_not_unpacked(raw, connect):
    async def invoke(call):
        await call.headers((*HEADERS, ("grpc-encoding", "gzip")))
        await call.data(frame(gzip.compress(ok("x" * 10 * MIB)), packed=1))
        await call.headers(TRAILERS, end=True)

    connection = await connect(await raw(invoke), limits={"message_bytes": MIB})
    with pytest.raises(KernelError, match="(?i)compress|decompress") as raised:
        await connection.request("invoke", params())
    assert raised.value.code in ("internal", "unsupported_op")


async def test_too_much_metadata_is_refused(raw, connect):
    async def invoke(call):
        await call.headers((*HEADERS, *((f"x-{n}", "v" * 1000) for n in range(100))))
        await call.data(frame(ok(1)))
        await call.headers(TRAILERS, end=True)

    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable):
        await connection.request("invoke", params())


async def test_an_answer_that_is_no_grpc_says_what_it_is(raw, connect):
    async def invoke(call):
        await call.headers(((":status", "503"), ("content-type", "text/html")))
        await call.data(b"<html>", end=True)

    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable, match="503|text/html"):
        await connection.request("invoke", params())


async def test_a_server_of_another_protocol_is_unreachable(connect):
    async def serve(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = await connect(f"dns:///127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(Unreachable):
        await connection.request("health", b"{}")
    await connection.close()
    server.close()


async def test_a_connection_that_breaks_fails_its_calls_and_no_others(raw, connect):
    async def invoke(call):
        if seen:
            await call.answer(ok("fine"))
            return
        seen.append(call)
        await call.headers()
        call.peer.transport.abort()

    seen = []
    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable):
        await connection.request("invoke", params())
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await connection.request("invoke", params())).result == "fine"
                break
            except Unreachable:  # it waits a moment before it connects again
                await asyncio.sleep(0.05)


async def test_a_stream_of_small_chunks_leaves_the_loop_to_others(raw, connect):
    async def invoke(call):
        await call.headers()
        block = frame(message(chunk=1)) * 1000
        for _ in range(50):
            await call.data(block)
        await call.data(frame(ok(1)))
        await call.headers(TRAILERS, end=True)

    connection = await connect(await raw(invoke))
    chunks = Chunks()
    chunks.discard()
    async with LoopGap() as gap:
        assert (await connection.request("invoke", params(), chunks)).result == 1
    assert gap.worst_cpu < 0.5
