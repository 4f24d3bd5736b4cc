"""A process that is forked from the embedder's: it must not keep the connections of the kernel open."""

import asyncio
import os
import signal

import pytest
from tests.http.raw import as_module
from tests.http.test_httpx import PARAMS, Module, serving

from amplifier_transport_http import _small_reads

if not hasattr(os, "fork"):
    pytest.skip("there is no fork on this system", allow_module_level=True)


@pytest.fixture
def fork():
    """Fork a worker that does nothing; it ends with the test."""
    workers = []

    def start():
        worker = os.fork()
        if worker == 0:
            signal.pause()
            os._exit(1)
        workers.append(worker)

    yield start
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


async def test_a_cancel_reaches_the_server_though_a_fork_lives_on(connect, serve, fork):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def wait(request):
        asked.set()
        await request.gone()
        gone.set()

    connection = await connect(await serve(as_module(wait)))
    task = asyncio.create_task(connection.request("invoke", PARAMS % 1))
    await asked.wait()
    fork()
    task.cancel()
    await asyncio.wait_for(gone.wait(), 10)
    assert task.cancelled()


async def test_a_connection_of_http2_ends_though_a_fork_lives_on(connect, fork):
    module = Module()
    async with serving(module) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        task = asyncio.create_task(connection.request("invoke", b'{"args":"wait"}'))
        await module.asked.wait()
        fork()
        await connection.close()
        await asyncio.wait_for(module.left.wait(), 10)
        await asyncio.wait((task,))


# What happens in the child, done here: coverage does not see into one that is killed.


async def test_an_open_connection_is_closed_in_the_child(connect, serve):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def wait(request):
        asked.set()
        await request.gone()
        gone.set()

    connection = await connect(await serve(as_module(wait)))
    task = asyncio.create_task(connection.request("invoke", PARAMS % 1))
    await asked.wait()
    (opened,) = connection._transport._open
    opened.after_fork()
    await asyncio.wait_for(gone.wait(), 10)
    task.cancel()
    await asyncio.wait((task,))
    await connection.close()
    opened.after_fork()


async def test_an_open_connection_of_http2_is_closed_in_the_child(monkeypatch, connect):
    streams = []
    monkeypatch.setattr(_small_reads, "watch_forks", streams.append)
    module = Module()
    async with serving(module) as place:
        connection = await connect(f"http://{place}", transport={"http2": True})
        task = asyncio.create_task(connection.request("invoke", b'{"args":"wait"}'))
        await module.asked.wait()
        (stream,) = streams
        stream.after_fork()
        await asyncio.wait_for(module.left.wait(), 10)
        task.cancel()
        await asyncio.wait((task,))
        await connection.close()
        stream.after_fork()


async def test_a_closed_connection_leaves_its_number_to_others(connect, serve, fork):
    async def answer(request):
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n" + b'{"ok": true, "result": [1]}')

    connection = await connect(await serve(as_module(answer)))
    assert (await connection.request("invoke", PARAMS % 1)).result == [1]
    await connection.close()
    read, write = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(write, b"mine")
        os._exit(0)
    os.close(write)
    try:
        assert os.read(read, 10) == b"mine"
    finally:
        os.close(read)
        os.waitpid(worker, 0)
