"""Remote modules through the kernel: real processes and real servers, mounted, invoked, and gone."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.http.raw import as_module, describe_remote, echo

from amplifier_core import KernelError, ModuleDescriptor, Unreachable, UnsupportedOp

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


async def test_64_invocations_at_once_on_one_module_each_get_their_own_reply(session, echo_module):
    await session.mount("/mnt/tools", echo_module())
    results = await asyncio.gather(*(session.invoke(TOOL, "echo", {"n": n}) for n in range(64)))
    assert [result["n"] for result in results] == list(range(64))


async def test_each_request_carries_the_trace_context_of_its_events(session, serve, events):
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url))
    await session.invoke("/mnt/tools/raw", "echo", {"text": "a b"})
    (event,) = events("module:invoke")
    request = server.requests[-1]
    assert request.headers["traceparent"] == f"00-{event['request_id']}-{event['span_id']}-01"
    assert request.params["request_id"] == event["request_id"]
    assert [each.headers.get("traceparent") for each in server.requests[:-1]] == [None, None]  # health and describe


async def test_capabilities_that_only_the_other_host_could_enforce_are_told_to_policy(session, serve, events, approve):
    await session.register_hook("policy:request", approve)
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url, capabilities=["net:connect:*", "sys:emit"]))
    assert events("policy:decision")[0]["data"]["unenforced"] == ["net:connect:*"]


async def test_unmounting_fails_what_is_in_flight_and_closes_the_connections(session, serve):
    asked = asyncio.Event()

    async def answer(request):
        asked.set()
        await request.gone()

    server = await serve(as_module(answer))
    await session.mount("/mnt/tools", describe_remote(server.url))
    waiting = asyncio.create_task(session.invoke("/mnt/tools/raw", "echo", {}))
    await asked.wait()
    async with asyncio.timeout(10):
        await session.unmount("/mnt/tools/raw")
        with pytest.raises(Unreachable):
            await waiting
        await server.requests[0].ended.wait()


async def test_one_connection_carries_health_describe_and_all_invocations_that_follow(session, serve):
    server = await serve(as_module(echo))
    await session.mount("/mnt/tools", describe_remote(server.url))
    for n in range(3):
        await session.invoke("/mnt/tools/raw", "echo", {"n": n})
    assert server.paths == ["/health", "/describe", "/invoke", "/invoke", "/invoke"]
    assert server.connections == 1
