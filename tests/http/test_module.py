"""Remote modules through the kernel: real processes and real servers, mounted, invoked, and gone."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest
from tests.http.raw import DESCRIPTION, as_module, describe_remote, echo, respond

from amplifier_core import Forbidden, Internal, KernelError, ModuleDescriptor, Timeout, Unreachable, UnsupportedOp

EXAMPLES = Path(__file__).parents[2] / "examples" / "modules"
TOOL = "/mnt/tools/echo"


async def test_a_module_in_another_process_is_mounted_described_and_invoked(session, echo_module, events):
    assert await session.mount("/mnt/tools", echo_module()) == {"name": "echo", "path": TOOL}
    assert (await session.describe(TOOL))["version"] == "0.1.0"
    args = {"text": "a b", "ä": [1, None, 1.5]}
    assert await session.invoke(TOOL, "echo", args) == args
    (added,) = events("mount:add")
    assert (added["status"], added["module"]) == ("ok", TOOL)
    (invoked,) = events("module:invoke")
    assert (invoked["status"], invoked["module"], invoked["data"]["op"]) == ("ok", TOOL, "echo")
    assert not events("module:start")  # no process of ours


@pytest.mark.parametrize("program_of", [("node", "wordcount.mjs"), (sys.executable, "wordcount_http.py")])
async def test_the_example_modules_count_words(session, program, need, approve, program_of):
    need(program_of[0])
    url = program(program_of[0], EXAMPLES / program_of[1])
    fields = json.loads((EXAMPLES / "wordcount-http.json").read_text())
    fields["transport"]["url"] = url
    await session.register_hook("policy:request", approve)
    await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(fields, base=EXAMPLES))
    path = "/mnt/tools/wordcount-http"
    assert await session.invoke(path, "count", {"text": "a b\nc"}) == {"words": 3, "lines": 1, "bytes": 5}
    with pytest.raises(UnsupportedOp):
        await session.invoke(path, "divide", {})


async def test_the_modules_own_error_passes_through_with_its_details(session, echo_module):
    await session.mount("/mnt/tools", echo_module())
    error = {"code": "no_such_word", "message": "none", "details": {"word": "x"}}
    with pytest.raises(KernelError) as raised:
        await session.invoke(TOOL, "fail", error)
    assert raised.value.code == "no_such_word"
    assert raised.value.details == {"word": "x", "module": TOOL}


@pytest.mark.parametrize(("status", "code"), [(422, "bad_request"), (403, "forbidden"), (404, "unsupported_op")])
async def test_the_status_of_an_answer_that_is_no_reply_names_the_error(session, echo_module, events, status, code):
    await session.mount("/mnt/tools", echo_module())
    with pytest.raises(KernelError) as raised:
        await session.invoke(TOOL, "status", {"status": status, "body": "<h1>no</h1>"})
    assert raised.value.code == code
    assert raised.value.details["http_status"] == status
    assert events("module:invoke")[-1]["error"]["details"]["body"] == "<h1>no</h1>"


async def test_64_invocations_at_once_on_one_module_each_get_their_own_reply(session, echo_module):
    await session.mount("/mnt/tools", echo_module())
    results = await asyncio.gather(*(session.invoke(TOOL, "echo", {"n": n}) for n in range(64)))
    assert [result["n"] for result in results] == list(range(64))


async def test_what_the_module_claims_beyond_its_descriptor_refuses_the_mount(session, serve):
    server = await serve(as_module(echo, {**DESCRIPTION, "capabilities": ["net:connect:*"]}))
    with pytest.raises(Forbidden, match="net:connect"):
        await session.mount("/mnt/tools", describe_remote(server.url))


async def test_capabilities_that_only_the_other_host_could_enforce_are_told_to_policy(session, serve, events, approve):
    await session.register_hook("policy:request", approve)
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url, capabilities=["net:connect:*", "sys:emit"]))
    assert events("policy:decision")[0]["data"]["unenforced"] == ["net:connect:*"]


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        (respond(b"", 503), Unreachable, "answered HTTP 503 with an empty body"),
        (respond(b"<html>", 200), Internal, "answered HTTP 200 with HTML, not JSON"),
        (respond({"status": "starting"}), Unreachable, "starting"),
        (respond({"ok": False, "error": {"code": "forbidden", "message": "no key"}}, 500), Forbidden, "no key"),
        (b"", Unreachable, "the server hung up before the end of its answer"),
    ],
)
async def test_a_module_that_is_not_well_is_not_mounted_and_leaves_nothing(
    session, serve, events, answers, error, text
):
    async def answer(request):
        await request.send(answers)
        if not answers:
            request.writer.close()

    server = await serve(answer)
    with pytest.raises(error, match=text):
        await session.mount("/mnt/tools", describe_remote(server.url))
    assert await session.mounts() == []
    assert server.paths == ["/health"]
    async with asyncio.timeout(1):
        await server.requests[0].ended.wait()
    (added,) = events("mount:add")
    assert (added["status"], added["error"]["code"]) == ("error", error.code)


async def hang(request):
    await request.gone()


async def hang_after_the_head(request):
    await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    await request.gone()


async def drip_headers(request):
    await drip(request, b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n")


async def drip_body(request):
    await drip(request, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n")


async def drip_early_responses(request):
    await drip(request, b"", b"HTTP/1.1 102 Processing\r\n\r\n")


async def drip(request, first, again):
    """Send ever more; only the deadline ends it, as the pauses are what the fault is made of."""
    await request.send(first)
    for _ in range(200):
        await request.send(again)
        await asyncio.sleep(0.005)
    await request.gone()


@pytest.mark.parametrize("late", [hang, hang_after_the_head, drip_headers, drip_body, drip_early_responses])
async def test_the_deadline_is_total_and_tells_the_module(session, serve, late):
    server = await serve(as_module(late))
    await session.mount("/mnt/tools", describe_remote(server.url))
    began = time.monotonic()
    with pytest.raises(Timeout) as raised:
        await session.invoke("/mnt/tools/raw", "echo", {}, timeout=0.2)
    assert 0.19 < time.monotonic() - began < 0.5
    assert raised.value.details["module"] == "/mnt/tools/raw"
    async with asyncio.timeout(1):
        await server.requests[-1].ended.wait()


async def test_a_late_reply_is_never_given_to_another_call(session, serve):
    released = asyncio.Event()

    async def answer(request):
        if request.params["args"]["n"] == 1:
            await released.wait()
        await echo(request)

    server = await serve(as_module(answer))
    await session.mount("/mnt/tools", describe_remote(server.url))
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/raw", "echo", {"n": 1}, timeout=0.05)
    released.set()
    assert await session.invoke("/mnt/tools/raw", "echo", {"n": 2}) == {"n": 2}


async def test_a_server_that_does_not_read_is_covered_by_the_deadline(session, serve):
    async def answer(request):
        await request.send(respond({"status": "ok"} if request.path == "/health" else DESCRIPTION))
        if request.path == "/describe":
            request.reader._transport.pause_reading()
            await asyncio.Event().wait()

    server = await serve(answer)
    await session.mount("/mnt/tools", describe_remote(server.url))
    with pytest.raises(Timeout):
        await session.invoke("/mnt/tools/raw", "echo", {"text": "x" * 30_000_000}, timeout=0.3)
    assert server.connections == 1


async def test_unmounting_fails_what_is_in_flight_and_closes_the_connections(session, serve):
    asked = asyncio.Event()

    async def answer(request):
        asked.set()
        await request.gone()

    server = await serve(as_module(answer))
    await session.mount("/mnt/tools", describe_remote(server.url))
    waiting = asyncio.create_task(session.invoke("/mnt/tools/raw", "echo", {}))
    await asked.wait()
    async with asyncio.timeout(1):
        await session.unmount("/mnt/tools/raw")
        with pytest.raises(Unreachable):
            await waiting
        await server.requests[0].ended.wait()


async def test_a_module_that_was_away_is_there_again_for_the_next_invocation(session, serve):
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url))
    await server.stop()
    with pytest.raises(Unreachable) as raised:
        await session.invoke("/mnt/tools/raw", "echo", {"n": 1})
    assert raised.value.details["url"] == server.url
    await serve(as_module(echo), port=server.port)
    assert await session.invoke("/mnt/tools/raw", "echo", {"n": 2}) == {"n": 2}


async def test_one_connection_carries_health_describe_and_all_invocations_that_follow(session, serve):
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url))
    for n in range(3):
        await session.invoke("/mnt/tools/raw", "echo", {"n": n})
    assert server.paths == ["/health", "/describe", "/invoke", "/invoke", "/invoke"]
    assert server.connections == 1
