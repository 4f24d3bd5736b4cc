"""Streams over HTTP: NDJSON, chunk lines and then the final reply."""

import asyncio
import gzip
import json

import pytest
from tests.http.raw import as_module, describe_remote, respond

from amplifier_core import Internal, KernelError, Timeout, Unreachable
from amplifier_core.hookspecs import Chunks

RAW = "/mnt/tools/raw"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
FINAL = {"ok": True, "result": {"count": 3}}


def line(message):
    return json.dumps(message).encode() + b"\n"


def piece(data):
    """Frame a piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def streaming(*messages):
    """Answer with a stream, a piece a message."""

    async def answer(request):
        await request.send(HEAD)
        for message in messages:
            await request.send(piece(line(message)))
        await request.send(END)

    return as_module(answer)


@pytest.fixture
def mounted(session, serve):
    async def mount(answer, **fields):
        server = await serve(answer)
        await session.mount("/mnt/tools", describe_remote(server.url, **fields))
        return server

    return mount


def counted(to, size=0):
    return [{"chunk": {"n": n, "pad": "x" * size}} for n in range(1, to + 1)]


async def test_chunks_come_in_order_and_the_result_after_them(session, mounted):
    server = await mounted(streaming(*counted(100), FINAL))
    for _ in range(2):
        stream = session.stream(RAW, "count", {})
        assert [chunk["n"] async for chunk in stream] == list(range(1, 101))
        assert await stream.result() == {"count": 3}
        assert stream.dropped == 0
    assert server.connections == 1


async def test_a_caller_who_asks_for_no_chunks_gets_the_result(session, mounted):
    await mounted(streaming(*counted(100), FINAL))
    assert await session.invoke(RAW, "count", {}) == {"count": 3}


async def test_a_chunk_is_there_before_the_next_one_is_made(session, mounted):
    go = asyncio.Semaphore(0)

    async def answer(request):
        await request.send(HEAD)
        for message in counted(3):
            await go.acquire()
            await request.send(piece(line(message)))
        await request.send(piece(line(FINAL)) + END)

    await mounted(as_module(answer))
    stream = session.stream(RAW, "count", {})
    for n in range(1, 4):
        go.release()
        assert (await anext(stream))["n"] == n
    assert await stream.result() == {"count": 3}


@pytest.fixture
def ask(serve, connect):
    """Ask a server that answers with the given body as NDJSON; give the chunks and the reply."""

    async def exchange(response, limits=None):
        async def answer(request):
            await request.send(response)

        connection = await connect(await serve(answer), limits=limits or {})
        chunks = Chunks()
        reply = await connection.request("invoke", b"{}", chunks)
        chunks.end()
        found = []
        while True:
            try:
                found.append(await chunks.get())
            except StopAsyncIteration:
                return found, reply

    return exchange


def ndjson(body, status=200, media="application/x-ndjson", headers=()):
    return respond(body, status, [f"content-type: {media}", *headers])


BODY = b'{"chunk": 1}\n{"chunk": [2, "\xe2\x80\xa8"]}\r\n\n  \n{"ok": true, "result": 3}'


@pytest.mark.parametrize("media", ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\n"])
async def test_lines_may_be_empty_and_the_last_one_need_not_end(ask, media, end):
    chunks, reply = await ask(ndjson(BODY + end, media=media))
    assert (chunks, reply.result) == ([1, [2, "\u2028"]], 3)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13])
async def test_lines_and_pieces_need_not_agree(ask, size):
    pieces = [piece(BODY[start : start + size]) for start in range(0, len(BODY), size)]
    chunks, reply = await ask(HEAD + b"".join(pieces) + END)
    assert (chunks, reply.result) == ([1, [2, "\u2028"]], 3)


async def test_a_stream_may_be_packed(ask):
    packed = gzip.compress(b'{"chunk": "%s"}\n' % (b"x" * 200_000) + BODY)
    chunks, reply = await ask(ndjson(packed, headers=["content-encoding: gzip"]))
    assert (chunks, reply.result) == (["x" * 200_000, 1, [2, "\u2028"]], 3)


async def test_a_stream_without_chunks_is_a_reply_like_any_other(ask):
    assert (await ask(ndjson(b'{"ok": true, "result": 3}\n', 500)))[1].result == 3
    failure = {"ok": False, "error": {"code": "mine", "message": "after all"}}
    assert (await ask(ndjson(line(failure))))[1].error.code == "mine"


async def test_an_error_may_come_after_chunks(session, mounted):
    await mounted(streaming(*counted(3), {"ok": False, "error": {"code": "mine", "message": "after all"}}))
    stream = session.stream(RAW, "fail", {})
    seen = []
    with pytest.raises(KernelError, match="mine: after all"):
        async for chunk in stream:
            seen.append(chunk["n"])
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "an empty body"),
        (b" \n\r\n", "an empty body"),
        (b'{"chunk": 1}\n', "a stream that ended without a final reply"),
        (b'{"chunk": 1}\n\n', "a stream that ended without a final reply"),
        (b'{"chunk": 1}', "a stream that ended without a final reply"),
        (b'{"chunk": 1}\nnot json\n', "invalid JSON: JSON is malformed"),
        (b'{"chunk": 1}\n{"ok": tr', "invalid JSON: Input data was truncated"),
        (b'{"chunk": 1}\n{"words": 3}\n', "none of the three shapes of section 2"),
        (b'{"ok": true, "result": 3}\n{"chunk": 1}\n', "a line that is no chunk before its last line"),
        (b'not json\n{"ok": true, "result": 3}\n', "invalid JSON: JSON is malformed"),
        (b'{"chunk": 1, "ok": true, "result": 3}\n', "expected a chunk or a reply, got both in one message"),
    ],
)
async def test_a_stream_without_one_final_reply_is_the_modules_fault(ask, body, what):
    with pytest.raises(Internal) as raised:
        await ask(ndjson(body))
    assert what in raised.value.message
    assert raised.value.details["http_status"] == 200


@pytest.mark.parametrize("broken", [b"not json", b'{"chunk": 1, "ok": true, "result": 3}', b'{"chunk": NaN}'])
async def test_a_line_that_is_no_message_fails_the_call_though_the_stream_goes_on(session, mounted, broken):
    async def answer(request):
        await request.send(HEAD + piece(broken + b"\n"))
        await request.gone()

    await mounted(as_module(answer))
    with pytest.raises(Internal, match="answered HTTP 200 with invalid JSON"):
        await session.invoke(RAW, "x", {}, timeout=20)


async def test_the_status_decides_for_a_stream_without_a_reply_too(ask):
    with pytest.raises(Unreachable, match="answered HTTP 503 with a stream that ended without a final reply"):
        await ask(ndjson(b'{"chunk": 1}\n', 503))


async def test_the_limit_is_for_each_message_not_for_the_stream(ask):
    text = b"x" * 900
    body = b'{"chunk": "%s"}\n' % text * 100
    limits = {"message_bytes": 1000}
    chunks, _ = await ask(ndjson(body + b'{"ok": true, "result": 3}'), limits=limits)
    assert len(chunks) == 100
    for long in (b"x" * 1001, b'{"chunk": 1}\n' + b"x" * 1001 + b"\n", b"x" * 600 + b"\n" + b"x" * 1001):
        with pytest.raises(Internal, match="more than 1000 bytes"):
            await ask(ndjson(long), limits=limits)


async def test_blank_lines_are_counted(ask):
    limits = {"message_bytes": 1000}
    body = b"\n" * 60_000 + b'{"chunk": 1}\n'
    assert (await ask(ndjson(body * 3 + b'{"ok": true, "result": 3}'), limits=limits))[0] == [1, 1, 1]
    with pytest.raises(Internal, match="more than 1000 bytes"):
        await ask(ndjson(b"\n" * 200_000 + body), limits=limits)


async def test_many_chunks_give_others_a_turn(serve, connect):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    packed = gzip.compress(b'{"chunk":1}\n' * 30_000 + b'{"ok":true,"result":3}')

    async def answer(request):
        await request.send(ndjson(packed, headers=["content-encoding: gzip"]))

    connection = await connect(await serve(answer))
    chunks = Chunks()
    chunks.discard()
    reply = await connection.request("invoke", b"{}", chunks)
    counting.cancel()
    assert (reply.result, turns > 3) == (3, True)


async def test_a_slow_reader_holds_its_module_back_and_loses_nothing(session, mounted):
    done = asyncio.Event()

    async def answer(request):
        await request.send(HEAD)
        for message in counted(600, 100_000):  # 60 MB, far more than all the buffers between the two
            await request.send(piece(line(message)))
        await request.send(piece(line(FINAL)) + END)
        done.set()

    await mounted(as_module(answer))
    stream = session.stream(RAW, "count", {})
    assert (await anext(stream))["n"] == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await done.wait()
    assert [chunk["n"] async for chunk in stream] == list(range(2, 601))
    assert (await stream.result(), stream.dropped) == ({"count": 3}, 0)


async def test_a_slow_reader_slows_no_other_invocation(session, mounted):
    async def answer(request):
        if request.params["op"] == "quick":
            await request.send(respond({"ok": True, "result": "quick"}))
            return
        await request.send(HEAD)
        for message in counted(600, 100_000):
            await request.send(piece(line(message)))

    await mounted(as_module(answer))
    async with session.stream(RAW, "slow", {}) as stream:
        assert (await anext(stream))["n"] == 1
        for _ in range(10):
            assert await session.invoke(RAW, "quick", {}) == "quick"


async def test_leaving_a_stream_closes_its_connection(session, mounted):
    async def answer(request):
        await request.send(HEAD + piece(line({"chunk": {"n": 1}})))
        await request.gone()

    server = await mounted(as_module(answer))
    async with session.stream(RAW, "endless", {}) as stream:
        assert (await anext(stream))["n"] == 1
    async with asyncio.timeout(5):
        await server.requests[-1].ended.wait()


async def test_the_idle_limit_ends_a_stream_that_falls_silent(session, mounted):
    async def answer(request):
        await request.send(HEAD + piece(line({"chunk": {"n": 1}})))
        await request.gone()

    server = await mounted(as_module(answer), limits={"idle_ms": 100})
    stream = session.stream(RAW, "endless", {})
    assert (await anext(stream))["n"] == 1
    with pytest.raises(Timeout):
        await anext(stream)
    async with asyncio.timeout(5):
        await server.requests[-1].ended.wait()


async def test_a_connection_that_was_held_back_hears_its_server_again_when_idle(serve, connect):
    sent, idle = asyncio.Event(), asyncio.Event()

    async def answer(request):
        body = b"".join(map(line, [*counted(4, 150_000), FINAL]))
        await request.send(ndjson(body))
        sent.set()
        await idle.wait()
        await request.send(b"surplus")
        await request.gone()

    server = await serve(answer)
    connection = await connect(server)
    chunks = Chunks()
    asking = asyncio.create_task(connection.request("invoke", b"{}", chunks))
    await sent.wait()
    for _ in range(100):  # turns of the loop, in which the connection fills up
        await asyncio.sleep(0)
    assert not asking.done()
    chunks.discard()
    assert (await asking).result == {"count": 3}
    idle.set()
    async with asyncio.timeout(5):
        await server.requests[0].ended.wait()
