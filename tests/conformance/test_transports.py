"""One message means the same on every transport: on STDIO, and over HTTP alone or as a line of a stream."""

import json

import pytest
from tests.http.raw import Server, as_module, describe_remote, respond

from amplifier_core import KernelError

NULLS = {"chunk": None, "ok": None, "result": None, "error": None, "pending": None, "events": None}
WHY = {"code": "acme_quota", "message": "no"}
MESSAGES = {
    "a result": ({"ok": True, "result": 1}, 1),
    "a result, and null in all else": ({**NULLS, "ok": True, "result": 1}, 1),
    "a result that is null": ({**NULLS, "ok": True}, None),
    "an error, and null in all else": ({**NULLS, "ok": False, "error": {**WHY, "details": None}}, "acme_quota"),
    "neither": ({**NULLS, "result": 1}, "internal"),
    "a chunk that is none, and a bare result": ({"chunk": None, "result": 1}, "internal"),
    "a result and a chunk": ({"chunk": 1, "ok": True, "result": 1}, "internal"),
    "an error and a chunk": ({"chunk": {}, "ok": False, "error": WHY}, "internal"),
    "pending and a chunk": ({"chunk": "", "pending": {"syscalls": [{"name": "mounts", "args": {}}]}}, "internal"),
    "ok that is null beside an error": ({"ok": None, "error": WHY}, "internal"),
}


@pytest.fixture
async def serve():
    """Start a server for the length of a test: ``await serve(answer)``."""
    opened = []

    async def start(answer):
        server = Server(answer)
        await server.start()
        opened.append(server)
        return server

    yield start
    for server in opened:
        await server.stop()


async def over_stdio(session, module, serve, message):
    await session.mount("/mnt/tools", module("caller.py", kind="orchestrator"), trusted=True)
    return session.stream("/mnt/tools/caller", "raw", {"reply": message})


async def over_http(session, module, serve, message, kind="application/json"):
    async def answer(request):
        await request.send(respond(json.dumps(message).encode(), headers=[f"content-type: {kind}"]))

    await session.mount("/mnt/tools", describe_remote((await serve(as_module(answer))).url))
    return session.stream("/mnt/tools/raw", "raw", {})


async def over_ndjson(session, module, serve, message):
    return await over_http(session, module, serve, message, "application/x-ndjson")


TRANSPORTS = [over_stdio, over_http, over_ndjson]


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_means_the_same_on_every_transport(session, module, serve, transport, name):
    message, expected = MESSAGES[name]
    stream = await transport(session, module, serve, message)
    if isinstance(expected, str):
        with pytest.raises(KernelError) as raised:
            await stream.result()
        assert raised.value.code == expected
    else:
        assert [chunk async for chunk in stream] == []
        assert await stream.result() == expected


CHUNKS = [{"chunk": 1}, {**NULLS, "chunk": 2}, {"chunk": None}, NULLS]


async def test_a_chunk_with_null_in_all_else_is_a_chunk_of_a_stream(session, serve):
    async def answer(request):
        lines = [json.dumps(message).encode() for message in (*CHUNKS, {**NULLS, "ok": True, "result": 3})]
        await request.send(respond(b"\n".join(lines), headers=["content-type: application/x-ndjson"]))

    await session.mount("/mnt/tools", describe_remote((await serve(as_module(answer))).url))
    stream = session.stream("/mnt/tools/raw", "raw", {})
    assert [chunk async for chunk in stream] == [1, 2, None, None]
    assert await stream.result() == 3
