import asyncio

import pytest

from amplifier_core.hookspecs._chunks import ENOUGH, Chunks, TimedChunks


async def test_chunks_come_out_in_order_and_end():
    chunks = Chunks()
    for n in range(3):
        assert chunks.put(n, 1)
    chunks.end()
    assert [await chunks.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await chunks.get()


async def test_a_writer_waits_for_room_until_half_is_read():
    chunks = Chunks()
    half = ENOUGH // 2
    assert chunks.put("a", half)
    assert not chunks.put("b", half)
    room = asyncio.create_task(chunks.room())
    await asyncio.sleep(0)
    assert not room.done()
    await chunks.get()
    await asyncio.sleep(0)
    assert not room.done()
    await chunks.get()
    await room


async def test_room_returns_at_once_if_there_is_room():
    chunks = Chunks()
    await chunks.room()
    chunks.put("a", ENOUGH)
    chunks.discard()
    await chunks.room()


async def test_no_writer_waits_after_discard():
    chunks = Chunks()
    chunks.put("a", ENOUGH)
    room = asyncio.create_task(chunks.room())
    await asyncio.sleep(0)
    chunks.discard()
    await room
    assert chunks.put("b", ENOUGH)
    chunks.end()
    with pytest.raises(StopAsyncIteration):
        await chunks.get()


async def test_chunks_beyond_the_bound_are_dropped_and_counted():
    chunks = Chunks()
    for n in range(100):
        chunks.put(n, ENOUGH)
    chunks.end()
    kept = 100 - chunks.dropped
    assert 0 < kept < 50
    assert [await chunks.get() for _ in range(kept)] == list(range(kept))


async def test_each_chunk_restarts_the_idle_time_with_or_without_a_reader():
    touched = []
    chunks = Chunks()
    for to in (None, chunks):
        watched = TimedChunks(to, lambda: touched.append("sign"), lambda: touched.append("rest"))
        assert watched.put("a", ENOUGH) is (to is None)
        watched.when_room(lambda: touched.append("room"))
    assert touched == ["sign", "room", "sign", "rest"]
    assert await chunks.get() == "a"
    assert touched[4:] == ["sign", "room"]


async def test_the_idle_time_stops_while_a_request_is_held_and_begins_when_it_is_sent():
    touched = []
    watched = TimedChunks(None, lambda: touched.append("sign"), lambda: touched.append("rest"))
    watched.hold()
    watched.sent()
    assert touched == ["rest", "sign"]


def test_what_was_dropped_elsewhere_is_counted_for_the_reader():
    reader = Chunks()
    watched = TimedChunks(reader, lambda: None, lambda: None)
    reader.count_dropped(1)
    watched.count_dropped(2)
    TimedChunks(None, lambda: None, lambda: None).count_dropped(3)
    assert reader.dropped == 3


async def test_a_callback_registered_many_times_is_called_once():
    touched = []
    chunks = Chunks()
    watched = TimedChunks(chunks, lambda: touched.append("sign"), lambda: None)
    for n in range(100):
        assert not watched.put(n, ENOUGH)
    assert len(chunks._waiting_for_room) == 1
    touched.clear()
    chunks.discard()
    assert touched == ["sign"]
