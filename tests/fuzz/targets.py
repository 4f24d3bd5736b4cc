"""The targets of the fuzzing: both framings, messages and descriptors, each with what must hold for all bytes.

A target is a context manager that gives a function of bytes. An exception of it is a finding. The first bytes steer
(where reads are cut, how large a message may be); the module or the server sends the rest.
"""

import asyncio
import gzip
import json
import math
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import cycle
from pathlib import Path

import attrs
import httpx
from tests.http.raw import Server, as_module, describe_remote, respond

from amplifier_core import BadRequest, Internal, Kernel, KernelError, ModuleDescriptor, Plan, load_descriptor
from amplifier_core._protocol.json import NotJson, encode_checked
from amplifier_core._protocol.message import decode_message, result_of, result_size
from amplifier_core.hookspecs import UNSET, Chunks, LineBuffer, LineTooLongError
from amplifier_transport_http import Body, Response
from amplifier_transport_http import read_fields as read_http_fields
from amplifier_transport_http._ndjson import read_final
from amplifier_transport_http._reply import read_reply
from amplifier_transport_stdio._fields import read_fields
from amplifier_transport_stdio._framing import find_ids

SAY = Path(__file__).with_name("say.py")
SECONDS = 20.0
"""Of a deadline. A target that reaches it is a finding."""
URL = httpx.URL("http://127.0.0.1:8080/m/invoke")
LIMIT = 3000
"""Bytes of the largest message here; what is fuzzed is seldom longer."""


def steered(data):
    """Split off the bytes that steer."""
    return data[:3].ljust(3, b"\0"), data[3:]


def cut(data, sizes):
    """Cut bytes into pieces of these sizes, plus one, again and again."""
    pieces, at = [], 0
    for size in cycle(sizes):
        if at >= len(data):
            return pieces
        pieces.append(data[at : at + size + 1])
        at += size + 1
    return [data]


def check_line(text):
    """Hold the message of one of the kernel's own errors to one line."""
    assert len(text.splitlines()) == 1, text
    assert text.encode().decode() == text


def check_json(text, *, in_range=True):
    """Hold bytes to strict JSON, by another reader than the kernel's."""

    def refuse(constant):
        raise AssertionError(constant)

    def finite(number):
        assert math.isfinite(float(number)) or not in_range
        return number

    value = json.loads(text.decode(), parse_constant=refuse, parse_float=finite)
    json.dumps(value, ensure_ascii=False).encode()


@contextmanager
def framing():
    """Lines come out whole however they are cut, and none is longer than the limit."""

    def check(data):
        (size, *sizes), stream = steered(data)
        buffer = LineBuffer(size)
        expected = stream.split(b"\n")
        found = []
        try:
            for piece in [*cut(stream, sizes), b"\n"]:
                found += buffer.feed(piece)
        except LineTooLongError:
            assert max(map(len, expected)) > size
            return
        assert max(map(len, expected)) <= size
        assert [line.removesuffix(b"\n") for line in found] == [line for line in expected if line.strip()]
        assert all(len(found_id) <= 64 for line in found for found_id in find_ids(line))

    yield check


@contextmanager
def message():
    """A message is refused in one line, or what it says is JSON in the eyes of others too."""

    def check(data):
        try:
            message = decode_message(data)
        except NotJson as error:
            check_line(str(error))
            return
        assert message.result is UNSET or result_size(message) > 0
        for part in (message.result, message.chunk, message.events, message.error):
            if part is not UNSET:
                check_json(encode_checked(part))
        if message.pending is not None:
            check_json(bytes(message.pending.state), in_range=False)  # untouched, and so not looked into
            check_json(encode_checked([[call.name, call.args] for call in message.pending.syscalls]))
        with suppress(KernelError):
            result_of(message, "who")

    yield check


@contextmanager
def descriptor():
    """A descriptor is read and means the same when it is written out, or is refused in one line that names it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "module.json")

        def check(data):
            file.write_bytes(data)
            try:
                found = load_descriptor(file)
                if found.transport["type"] == "http":
                    read_http_fields(found)
                elif found.transport["type"] == "stdio":
                    read_fields(found)
            except BadRequest as error:
                check_line(error.message)
                assert error.message.startswith(f"{file}: ")  # noqa: PT017 - what else it may be is not known
                return
            check_json(encode_checked(found.transport))
            assert attrs.evolve(found) == found

        yield check


@contextmanager
def reply():
    """A response is a reply or an error with its status; a redirect stays at its origin."""

    limit = 2**20

    def check(data):
        (status, method, location), body = steered(data)
        head = [(b"location", body[:location])] if location else []
        response = Response(URL, 100 + 2 * status, httpx.Headers(head), body[location:])
        try:
            message = runner.run(read_reply(response, ("invoke", "health", "describe")[method % 3], limit))
        except KernelError as error:
            assert error.details["http_status"] == response.status  # noqa: PT017 - or none at all
            check_json(encode_checked(error.body()))
        else:
            assert message.is_reply()
        target = response.redirect()
        assert target is None or str(target).startswith("http://127.0.0.1:8080")

    with asyncio.Runner() as runner:
        yield check


@contextmanager
def ndjson():
    """A body of lines means the same however it is cut and packed."""
    with asyncio.Runner() as runner:

        async def read(pieces, headers):
            async def parts():
                for piece in pieces:
                    yield piece

            class Stream(httpx.AsyncByteStream):
                def __aiter__(self):
                    return parts()

            chunks = Chunks()
            response = httpx.Response(200, headers=headers, stream=Stream())
            try:
                final = await read_final(Body(response, URL, LIMIT), chunks)
            except Internal:
                return None
            return final, [chunks.take() for _ in range(len(chunks._queue))]

        def check(data):
            (packed, *sizes), body = steered(data)
            whole = runner.run(read([body], {}))
            if packed:
                pieces, headers = cut(gzip.compress(body, 1), sizes), {"content-encoding": "gzip"}
            else:
                pieces, headers = cut(body, sizes), {}
            assert runner.run(read(pieces, headers)) == whole
            runner.run(read(cut(body, sizes), {"content-encoding": "gzip"}))

        yield check


class StrictSink:
    """A sink that holds each event to strict JSON, and its number to the one before."""

    def __init__(self):
        self.seq = 0
        self.faults = []

    def write(self, line):
        self.seq += 1
        try:
            check_json(line)
            assert json.loads(line)["seq"] == self.seq
            assert line.count(b"\n") == 1
        except BaseException as error:
            self.faults.append(error)
            raise

    def close(self):
        pass


@asynccontextmanager
async def invoking(descriptor):
    """Mount a module and give what asks it: the fuzzed operation first, then one that it must answer all the same."""
    sink = StrictSink()
    async with Kernel(event_log=False, sinks=[sink], timeout=SECONDS) as kernel:
        session = await kernel.session.create(Plan(goal="fuzz", inputs={}))
        await session.mount("/mnt/tools", descriptor, trusted=True)
        path = f"/mnt/tools/{descriptor.name}"

        async def ask(args):
            began = time.monotonic()
            stream = session.stream(path, "bad", args)
            try:
                async for _ in stream:
                    pass
                encode_checked(await stream.result())
            except KernelError:
                assert time.monotonic() - began < SECONDS  # that it was a deadline, its code may say as well
            assert await session.invoke(path, "good", {"n": 1}) == {"n": 1}
            assert not sink.faults, sink.faults

        yield ask


@contextmanager
def entered(runner, manager):
    """Hold an async context manager open on a runner's loop."""
    value = runner.run(manager.__aenter__())
    try:
        yield value
    finally:
        runner.run(manager.__aexit__(None, None, None))


@contextmanager
def stdio():
    """Whatever a process writes, its call ends, the next one is answered, and the log stays JSON. `$ID` is the id."""
    fields = {"name": "say", "kind": "tool", "capabilities": [], "limits": {"message_bytes": LIMIT}}
    command = [sys.executable, "-S", "-E", str(SAY)]
    module = ModuleDescriptor.from_mapping({**fields, "transport": {"type": "stdio", "command": command}})
    with asyncio.Runner() as runner, entered(runner, invoking(module)) as ask:
        yield lambda data: runner.run(ask({"bytes": data.hex()}))


@contextmanager
def http():
    """Whatever a server writes, its call ends, and the next one is answered with its own answer."""
    say = []

    async def answer(request):
        if request.params["op"] == "good":
            await request.send(respond({"ok": True, "result": request.params["args"]}))
            return
        (how, *_), data = steered(say[0])
        if how % 4 == 0:  # bytes after a whole answer belong to no request
            await request.send(respond({"ok": True, "result": {"n": 0}}) + data)
            return
        head = {1: b"", 2: b"HTTP/1.1 200 OK\r\n", 3: b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"}
        await request.send(head[how % 4] + data)
        request.writer.close()

    async def serve_bodies(request):
        await as_module(answer, DESCRIPTION)(request)
        server.requests.clear()

    server = Server(serve_bodies)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            module = describe_remote(server.url, limits={"message_bytes": LIMIT})
            with entered(runner, invoking(module)) as ask:

                def check(data):
                    say[:] = [data]
                    runner.run(ask({}))

                yield check
        finally:
            runner.run(server.stop())


DESCRIPTION = {"name": "raw", "version": "1.0.0", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}

TARGETS = {target.__name__: target for target in (framing, message, descriptor, reply, ndjson, stdio, http)}
