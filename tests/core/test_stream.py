"""Streams: chunks in order and with bounds, and the ways in which a reader leaves."""

import asyncio
import gc
import time

import pytest

from amplifier_core import BadRequest, Cancelled, KernelError, Timeout

STREAMER = "/mnt/providers/streamer"


@pytest.fixture
def streamer(module):
    def describe(**fields):
        return module("streamer.py", kind="provider", **fields)

    return describe


@pytest.fixture
async def streaming(session, streamer):
    await session.mount("/mnt/providers", streamer(), trusted=True)
    return session


async def check_unharmed(session, events):
    """Check that the module was not killed and started again. The invocation waits until that is certain."""
    assert await session.invoke(STREAMER, "count", {"to": 1}) == {"count": 1}
    assert len(events("module:start")) == 1


async def test_chunks_come_in_order_and_the_result_after_them(streaming):
    stream = streaming.stream(STREAMER, "count", {"to": 100})
    assert [chunk["n"] async for chunk in stream] == list(range(1, 101))
    assert await stream.result() == {"count": 100}
    assert stream.dropped == 0


async def test_a_caller_that_wants_no_chunks_gets_the_result(streaming):
    assert await streaming.invoke(STREAMER, "count", {"to": 100}) == {"count": 100}


async def test_the_result_is_there_without_reading(streaming):
    assert await streaming.stream(STREAMER, "count", {"to": 5000, "size": 1000}).result() == {"count": 5000}


async def test_the_result_is_there_after_some_reading(streaming):
    stream = streaming.stream(STREAMER, "count", {"to": 5000, "size": 1000})
    async for chunk in stream:
        if chunk["n"] == 3:
            break
    assert await stream.result() == {"count": 5000}


async def test_an_error_is_raised_after_the_chunks(streaming):
    stream = streaming.stream(STREAMER, "fail", {"to": 3})
    seen = []
    with pytest.raises(KernelError, match="mine: after all"):
        async for chunk in stream:
            seen.append(chunk["n"])
    assert seen == [1, 2, 3]
    with pytest.raises(KernelError, match="mine: after all"):
        await stream.result()


async def test_twenty_thousand_chunks_at_once(streaming):
    stream = streaming.stream(STREAMER, "count", {"to": 20_000})
    assert [chunk["n"] async for chunk in stream] == list(range(1, 20_001))


async def test_a_slow_reader_holds_its_module_back_and_loses_nothing(streaming):
    """100 MB of chunks, of which only a pipe and a small buffer may be full."""
    stream = streaming.stream(STREAMER, "count", {"to": 1000, "size": 100_000})
    expected = 0
    async for chunk in stream:
        expected += 1
        assert chunk["n"] == expected
        if expected % 50 == 0:
            await asyncio.sleep(0.01)
            assert stream._chunks._size < 2 * 1024 * 1024
    assert expected == 1000
    assert stream.dropped == 0


async def test_a_slow_reader_slows_no_other_reader_of_the_module(streaming):
    async with streaming.stream(STREAMER, "endless", {"size": 10_000}) as slow:
        assert (await anext(slow))["n"] == 1
        await asyncio.sleep(0.2)
        for _ in range(5):
            began = time.monotonic()
            assert await streaming.invoke(STREAMER, "count", {"to": 1}, timeout=5) == {"count": 1}
            assert time.monotonic() - began < 2
        assert slow._chunks._size < 10 * 1024 * 1024


async def test_a_second_reader_is_refused_while_the_first_one_waits(streaming):
    stream = streaming.stream(STREAMER, "count", {"to": 3, "pause": 0.05})
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(BadRequest, match="a stream has one reader: another task already waits for its next chunk"):
        await asyncio.wait_for(anext(stream), 10)
    assert (await first)["n"] == 1
    assert [chunk["n"] async for chunk in stream] == [2, 3]
    assert await stream.result() == {"count": 3}


async def test_leaving_cancels(streaming, events):
    async with streaming.stream(STREAMER, "endless", {"pause": 0.001}) as stream:
        async for chunk in stream:
            if chunk["n"] == 3:
                break
    (event,) = events("module:invoke")
    assert event["error"]["code"] == "cancelled"
    with pytest.raises(Cancelled, match="closed before its end"):
        await stream.result()
    await check_unharmed(streaming, events)


async def test_a_stream_that_is_garbage_is_cancelled(streaming, events):
    async for _ in streaming.stream(STREAMER, "endless", {"pause": 0.001}):
        break
    gc.collect()
    while not events("module:invoke"):
        await asyncio.sleep(0.001)
    assert events("module:invoke")[0]["error"]["code"] == "cancelled"
    await check_unharmed(streaming, events)


async def test_cancelling_the_reader_cancels(streaming, events):
    async def read():
        async for _ in streaming.stream(STREAMER, "endless", {"pause": 0.001}):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events("module:invoke")[0]["error"]["code"] == "cancelled"
    await check_unharmed(streaming, events)


async def test_cancelling_the_wait_for_the_result_cancels(streaming, events):
    task = asyncio.create_task(streaming.stream(STREAMER, "endless", {"pause": 0.001}).result())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events("module:invoke")[0]["error"]["code"] == "cancelled"
    await check_unharmed(streaming, events)


async def test_a_stream_that_was_closed_before_it_began_is_refused(streaming, events):
    stream = streaming.stream(STREAMER, "endless", {})
    await stream.aclose()
    with pytest.raises(BadRequest, match="the stream is closed"):
        await anext(stream)
    assert not events("module:invoke")


async def test_the_deadline_spans_the_whole_stream(streaming):
    began = time.monotonic()
    with pytest.raises(Timeout, match=r"no answer within 0\.3 s"):
        async for _ in streaming.stream(STREAMER, "endless", {"pause": 0.01}, timeout=0.3):
            pass
    assert time.monotonic() - began < 5  # it has no end


async def test_the_idle_limit_applies_between_chunks(session, streamer):
    await session.mount("/mnt/providers", streamer(limits={"idle_ms": 1000}), trusted=True)
    stream = session.stream(STREAMER, "count", {"to": 10, "pause": 0.15})
    assert len([chunk async for chunk in stream]) == 10
    assert await session.invoke(STREAMER, "count", {"to": 10, "pause": 0.15}) == {"count": 10}
    for call in (session.stream(STREAMER, "count", {"to": 2, "pause": 5}).result(),
                 session.invoke(STREAMER, "count", {"to": 2, "pause": 5})):  # fmt: skip
        began = time.monotonic()
        with pytest.raises(Timeout, match="no message within 1 s"):
            await call
        assert time.monotonic() - began < 4  # the pause is 5


async def test_the_idle_limit_does_not_run_while_a_call_waits_for_its_turn(session, streamer):
    """The second call waits a second for the first; then the module replies in time."""
    await session.mount("/mnt/providers", streamer(limits={"idle_ms": 800, "concurrency": 1}), trusted=True)
    first = session.invoke(STREAMER, "count", {"to": 10, "pause": 0.1})
    second = session.invoke(STREAMER, "count", {"to": 1})
    assert list(await asyncio.gather(first, second)) == [{"count": 10}, {"count": 1}]


async def test_an_orchestrator_passes_chunks_on_only_with_stream(session, streamer):
    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/providers", streamer(), trusted=True)
    await session.mount("/mnt/agents", streamer(name="agent", capabilities=["sys:invoke"]), trusted=True)
    for stream, expected in ((True, [1, 2, 3]), (False, [])):
        call = {"path": STREAMER, "op": "count", "args": {"to": 3}, "stream": stream}
        relayed = session.stream("/mnt/agents/agent", "relay", call)
        assert [chunk["n"] async for chunk in relayed] == expected
        assert await relayed.result() == {"count": 3}


async def test_hundreds_of_streams_at_once(streaming):
    streams = [streaming.stream(STREAMER, "count", {"to": 3, "pause": 0.05}) for _ in range(200)]

    async def read(stream):
        return [chunk["n"] async for chunk in stream]

    assert await asyncio.gather(*map(read, streams)) == [[1, 2, 3]] * 200


async def test_a_chunk_after_the_reply_is_noise(session, module, events):
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line)\n"
        "    d = {'name': 'm', 'kind': 'tool', 'capabilities': [], 'inputs': {}, 'outputs': {}}\n"
        "    a = {'health': {'status': 'ok'}, 'describe': d, 'invoke': 1}[r['method']]\n"
        "    print(json.dumps({'id': r['id'], 'ok': True, 'result': a}))\n"
        "    print(json.dumps({'id': r['id'], 'chunk': 1}), flush=True)\n"
    )
    transport = {"type": "stdio", "command": ["python3", "-c", code]}
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
    await session.mount("/mnt/tools", descriptor, trusted=True)
    assert await session.invoke("/mnt/tools/m", "x", {}) == 1
    await session.unmount("/mnt/tools/m")
    assert events("module:noise")[0]["data"]["count"] == 3


async def test_chunks_that_a_module_passes_on_do_not_restart_its_idle_time(session, streamer):
    """The idle time is paused during its system call, and begins again afterwards."""

    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/providers", streamer(), trusted=True)
    idle = streamer(name="agent", capabilities=["sys:invoke"], limits={"idle_ms": 600})
    await session.mount("/mnt/agents", idle, trusted=True)
    call = {"path": STREAMER, "op": "count", "args": {"to": 3, "pause": 0.3}, "stream": True}
    relayed = session.stream("/mnt/agents/agent", "relay", call)
    assert [chunk["n"] async for chunk in relayed] == [1, 2, 3]
    with pytest.raises(Timeout, match="no message"):
        await session.invoke("/mnt/agents/agent", "count", {"to": 2, "pause": 5})


async def test_a_stream_that_is_left_before_its_first_step_is_over(streaming):
    async with streaming.stream(STREAMER, "endless", {}) as stream:
        pass
    async with asyncio.timeout(10):
        with pytest.raises(Cancelled, match="closed before its end"):
            await anext(stream)
