"""The module of `check_transport`, served as lines: over stdin and stdout, or on a port of the loopback (`--port`)."""

import asyncio
import json
import os
import sys
import threading

from amplifier_core.testing import ProbeModule

MODULE = ProbeModule()


async def serve(reader, write, end):
    """Answer until the end of input."""
    running = {}
    async for line in reader:
        request = json.loads(line)
        if request["method"] == "cancel":
            if task := running.get(request["params"]["id"]):
                task.cancel()
            continue
        running[request["id"]] = task = asyncio.create_task(answer(request, write, end))
        task.add_done_callback(lambda _, ident=request["id"]: running.pop(ident))
        await asyncio.sleep(0)  # a task that is cancelled before it begins would not reply
    for task in running.values():
        task.cancel()


async def answer(request, write, end):
    """Answer one request. Its id goes into each message, after the first character."""
    head = f'{{"id":"{request["id"]}",'

    async def send(text):
        await write(f"{head}{text[1:]}\n".encode())

    reply = await MODULE.answer(request["method"], request.get("params", {}), send)
    if reply is None:
        end()
    else:
        await send(reply)


def feed(reader, loop):
    """Read stdin for the loop."""
    while data := os.read(0, 2**16):
        loop.call_soon_threadsafe(reader.feed_data, data)
    loop.call_soon_threadsafe(reader.feed_eof)


async def on_pipes():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    if sys.platform == "win32":  # asyncio reads no stdin there
        threading.Thread(target=feed, args=(reader, loop), daemon=True).start()
    else:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    lock = asyncio.Lock()

    async def write(line):
        async with lock:
            await asyncio.to_thread(out.write, line)

    with open(1, "wb", buffering=0, closefd=False) as out:
        await serve(reader, write, lambda: os._exit(3))


async def connected(reader, writer):
    """Serve one connection of a stream."""

    async def write(line):
        writer.write(line)
        await writer.drain()

    try:
        await serve(reader, write, writer.transport.abort)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def asked(reader, writer):
    """Answer one request over HTTP, in chunks; the end of the connection cancels it."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
    params = json.loads(await reader.readexactly(size))
    method = head.split()[1].decode().rpartition("/")[2]
    begins = [b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"]

    async def send(text):
        writer.write(b"".join(begins) + text.encode() + b"\n")
        begins.clear()
        await writer.drain()

    answering = asyncio.create_task(MODULE.answer(method, params, send))
    leaving = asyncio.create_task(reader.read())
    await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
    answering.cancel()
    try:
        reply = await answering
        if reply is None:
            writer.transport.abort()
        else:
            await send(json.dumps(json.loads(reply)["result"]) if method != "invoke" else reply)
    except (ConnectionError, asyncio.CancelledError):
        pass
    leaving.cancel()
    writer.close()


async def listen(mode, *path):
    """Listen, say where, and end with stdin."""
    serve_one = asked if mode == "--http" else connected
    if mode == "--socket":
        server = await asyncio.start_unix_server(serve_one, *path, limit=2**26)
    else:
        server = await asyncio.start_server(serve_one, "127.0.0.1", 0, limit=2**26)
    address = server.sockets[0].getsockname()
    print(address if mode == "--socket" else address[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    os._exit(0)


asyncio.run(listen(*sys.argv[1:]) if sys.argv[1:] else on_pipes())
