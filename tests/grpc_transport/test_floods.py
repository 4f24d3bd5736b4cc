"""Servers that send masses of what is not the response: each call has its code, and those beside it their replies."""

import asyncio
import json

import pytest
from tests.gap import LoopGap
from tests.grpc_transport.raw import frame
from tests.grpc_transport.servers import descriptor, ok, outcomes

from amplifier_core import KernelError, Unreachable

MIB = 1 << 20
INITIAL_WINDOW_SIZE = 4
REFUSED_STREAM = 7


def params(op="bad", **args):
    return json.dumps({"op": op, "args": args}).encode()


async def ends_with(call, *trailers):
    await call.headers()
    await call.plain_headers(*trailers)


async def trailers_of_1_mb(call):
    await call.headers()
    await call.data(frame(ok(1)))
    await call.plain_headers((b"grpc-status", b"0"), (b"x", b"v" * MIB))


async def many_trailers(call):
    await ends_with(call, (b"grpc-status", b"0"), *((b"x-%d" % n, b"v" * 100) for n in range(10_000)))


async def words_of_1_mb(call):
    await ends_with(call, (b"grpc-status", b"2"), (b"grpc-message", b"%00%0A%1b[31m" * 80_000))


async def control_characters(call):
    await ends_with(call, (b"grpc-status", b"2"), (b"grpc-message", b"a%00%0A%1b[31m%E2%80%A8b" * 100))


async def no_utf_8(call):
    await ends_with(call, (b"grpc-status", b"2"), (b"grpc-message", b"a%FF%FE\xff\xfeb\xc3"))


async def a_status_of_its_own(call):
    await ends_with(call, (b"grpc-status", b"99"), (b"grpc-message", b"x"))


async def no_status(call):
    await ends_with(call, (b"x", b"y"))


async def a_reset(call):
    call.peer.http2.reset_stream(call.stream, 0)
    await call.peer.flush()


async def a_refusal(call):
    call.peer.http2.reset_stream(call.stream, REFUSED_STREAM)
    await call.peer.flush()


async def pings(call):
    for n in range(5000):
        call.peer.http2.ping(n.to_bytes(8, "big"))
        if n % 100 == 0:
            await call.peer.flush()
    await call.answer(ok("pinged"))


async def settings(call):
    for n in range(5000):
        call.peer.http2.update_settings({INITIAL_WINDOW_SIZE: 65_535 + n})
        if n % 100 == 0:
            await call.peer.flush()
    await call.answer(ok("set"))


FLOODS = [
    (trailers_of_1_mb, "unreachable", "exceeds hard limit"),
    (many_trailers, "unreachable", "exceeds hard limit"),
    (words_of_1_mb, "unreachable", "exceeds hard limit"),
    (control_characters, "internal", "UNKNOWN: a"),
    (no_utf_8, "internal", "UNKNOWN: a"),
    (a_status_of_its_own, "internal", "UNKNOWN: x"),
    (no_status, "internal", "No status received"),
    (a_reset, "internal", "error code 0"),
    (a_refusal, "unreachable", "error code 7"),
    (pings, "ok", "pinged"),
    (settings, "ok", "set"),
]


@pytest.mark.parametrize(("flood", "code", "says"), FLOODS, ids=[flood.__name__ for flood, _, _ in FLOODS])
async def test_a_flood_ends_its_own_call_alone(raw, session, flood, code, says):
    met = asyncio.Event()

    async def invoke(call):
        if call.params["op"] == "good":
            await met.wait()
            await call.answer(ok("good"))
            return
        try:
            await flood(call)
        finally:
            met.set()

    await session.mount("/mnt/tools", descriptor((await raw(invoke)).target))

    async def outcome(op):
        try:
            return "ok", await session.invoke("/mnt/tools/m", op, {}, timeout=20)
        except KernelError as error:
            return error.code, str(error)

    async with LoopGap() as gap:
        (got, text), *others = await asyncio.gather(outcome("bad"), outcome("good"), outcome("good"))
    assert got == code
    assert says in text
    assert text.isprintable()
    assert len(text) < 8000  # of 1000 characters, each escaped
    assert [*others, await outcome("good")] == [("ok", "good")] * 3
    assert gap.worst_cpu < 0.5


async def test_headers_without_end_are_not_read_for_ever(raw, connect):
    async def invoke(call):
        sent.append(0)
        await call.headers()
        await call.plain_headers((b"grpc-status", b"0"), end=False)
        while True:
            await call.plain_headers((b"x", b"v" * 10_000), begin=False, end=False)
            sent[-1] += 10_000

    sent = []
    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable):
        await connection.request("invoke", params())
    assert sent[0] < 20 * MIB


async def test_what_is_no_http_2_ends_the_connection(raw, connect):
    async def invoke(call):
        await call.headers()
        call.peer.transport.write(b"HTTP/1.1 500 Oops\r\n\r\n" * 100)

    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable):
        await connection.request("invoke", params())


async def test_a_server_that_resets_every_call_is_internal(raw, connect):
    connection = await connect(await raw(a_reset))
    assert await outcomes(connection, params(), 100) == ["internal"] * 100
