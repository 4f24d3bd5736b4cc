"""Servers that leave: a call is made again if they tell that they have not looked at it, and never otherwise."""

import asyncio
import json

import pytest
from tests.grpc_transport.raw import GOAWAY
from tests.grpc_transport.servers import message, ok, outcomes

from amplifier_core import Unreachable

EVERY = 2**31 - 1  # no stream has a greater id
REFUSED_STREAM = 7


class Kept:
    """A reader of chunks that has room for all."""

    def __init__(self):
        self.values = []

    def put(self, value, _size):
        self.values.append(value)
        return True


def params(size=0):
    return json.dumps({"op": "x", "args": {"text": "x" * size}}).encode()


async def leave(call, last):
    await call.write((GOAWAY, 0, 0, last.to_bytes(4, "big") + bytes(4)))


async def leaves_without_it(call):
    await leave(call, call.stream - 2 if call.stream > 1 else 0)


async def leaves_in_two_steps(call):
    await leave(call, EVERY)
    await leaves_without_it(call)


async def refuses_it(call):
    call.peer.http2.reset_stream(call.stream, REFUSED_STREAM)
    await call.peer.flush()


async def leaves_after_it(call):
    await leave(call, call.stream)
    call.peer.transport.close()


async def leaves_after_all(call):
    await leave(call, EVERY)
    await asyncio.sleep(0.05)
    call.peer.transport.abort()


async def closes(call):
    call.peer.transport.close()


async def is_unavailable(call):
    await call.headers()
    await call.plain_headers((b"grpc-status", b"14"), (b"grpc-message", b"later"))


async def test_a_server_that_is_always_about_to_leave_is_asked_on_a_new_connection(raw, connect):
    async def invoke(call):
        peers.append(call.peer)
        await leave(call, call.stream)
        await call.answer(ok(1))

    peers = []
    connection = await connect(await raw(invoke))
    assert await outcomes(connection, params(), 5) == ["ok"] * 5
    assert len(set(peers)) > 1


@pytest.mark.parametrize("size", [0, 3_000_000])
@pytest.mark.parametrize("refuse", [leaves_without_it, leaves_in_two_steps, refuses_it])
async def test_a_call_that_was_not_looked_at_is_made_again(raw, connect, refuse, size):
    async def invoke(call):
        seen.append(call.params["args"]["text"])
        await (refuse(call) if len(seen) == 2 else call.answer(ok(1)))

    seen = []
    connection = await connect(await raw(invoke))
    assert await outcomes(connection, params(size), 3) == ["ok"] * 3
    assert seen == ["x" * size] * 4


ENDS = {  # and how often a call is made that ends so each time
    leaves_without_it: 4,
    leaves_in_two_steps: 4,
    refuses_it: 4,
    leaves_after_it: 1,
    leaves_after_all: 1,
    closes: 1,
    is_unavailable: 1,
}


@pytest.mark.parametrize(("end", "times"), ENDS.items())
async def test_a_call_is_made_four_times_at_most_and_once_if_it_may_have_been_carried_out(raw, connect, end, times):
    async def invoke(call):
        seen.append(call)
        await end(call)

    seen = []
    connection = await connect(await raw(invoke))
    assert await outcomes(connection, params(), 1) == ["unreachable"]
    assert len(seen) == times


async def test_a_call_that_has_sent_a_chunk_is_not_made_again(raw, connect):
    async def invoke(call):
        seen.append(call)
        await call.answer(
            message(chunk=1),
            trailers=(("grpc-status", "14"), ("grpc-message", "Stream removed (GOAWAY received; no)")),
        )

    seen, kept = [], Kept()
    connection = await connect(await raw(invoke))
    with pytest.raises(Unreachable):
        await connection.request("invoke", params(), kept)
    assert len(seen) == 1
    assert kept.values == [1]


async def test_a_call_that_waits_to_be_made_again_ends_with_its_connection(raw, connect):
    async def invoke(call):
        met.set()
        await refuses_it(call)

    met = asyncio.Event()
    connection = await connect(await raw(invoke))
    call = asyncio.create_task(connection.request("invoke", params()))
    await met.wait()
    await connection.close()
    with pytest.raises(Unreachable):
        await call
