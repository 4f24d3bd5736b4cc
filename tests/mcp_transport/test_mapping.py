"""How MCP stands in the kernel's words: ops, schemas, capabilities, results, failures, and what travels along."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from tests.mcp_transport.servers import MODERN, error, event, json_of, result, told
from tests.mcp_transport.servers import events as stream_of

from amplifier_core import BadRequest, Forbidden, Internal, KernelError, UnsupportedOp
from amplifier_core.testing import check_module

M = "/mnt/tools/m"
TEXT = {"type": "object", "properties": {"text": {"type": "string"}, "more": {"type": "array"}}, "required": ["text"]}
WORDS = {"type": "object", "properties": {"words": {"$ref": "#/$defs/count"}}, "$defs": {"count": {"type": "integer"}}}


def tool(name, schema=None, **more):
    return {"name": name, "inputSchema": schema or {"type": "object"}, **more}


@pytest.fixture
def remote(serve, mount, describe):
    """Serve and mount a server with such tools."""

    async def start(*tools, call=None, fields=(), **options):
        server = await serve(call, tools=list(tools), **options)
        await mount(describe(server.url, **dict(fields)), trusted=False)
        return server

    return start


async def test_a_description_has_an_op_for_each_tool_with_its_schemas(session, remote):
    about = {"description": "Counts.", "annotations": {"readOnlyHint": True}, "title": "Count"}
    await remote(
        tool("count", TEXT, outputSchema=WORDS, **about), tool("plain", {"type": "object", "description": "own"})
    )
    described = await session.describe(M)
    assert (described["name"], described["kind"], described["version"], described["capabilities"]) == (
        "m",
        "tool",
        None,
        [],
    )
    assert described["inputs"] == {
        "count": {"description": "Counts.", **TEXT},
        "plain": {"type": "object", "description": "own"},
    }
    content = {"content": {"type": "array"}}
    structured = {"structuredContent": {"$id": "mcp:output:count", **WORDS}}
    assert described["outputs"] == {
        "count": {"type": "object", "required": ["content", "structuredContent"], "properties": content | structured},
        "plain": {"type": "object", "required": ["content"], "properties": content},
    }
    assert described["mcp"] == {
        "name": "raw",
        "version": "1.2.3",
        "protocol": "2025-11-25",
        "tools": [{"name": "count", **about}, {"name": "plain"}],
    }


async def test_all_pages_are_read_and_a_listing_without_end_is_given_up(session, serve, mount, describe, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._listing.PAGES", 5)
    pages: dict[Any, Any] = {None: (["a", "b"], "2"), "2": (["c"], "3"), "3": ([], None)}

    async def listing(request, message):
        names, following = pages[message["params"].get("cursor") if "params" in message else None]
        page = {"tools": [tool(name) for name in names], **({"nextCursor": following} if following else {})}
        await request.send(json_of(result(message, page)))

    server = await serve(methods={"tools/list": listing})
    await mount(describe(server.url))
    assert list((await session.describe(M))["inputs"]) == ["a", "b", "c"]
    for changed, fault in (
        ({"3": ([], "2")}, "nextCursor: it had been there before"),
        ({"3": ([], "4"), "4": ([], "5"), "5": ([], "6")}, "more than 5 pages"),
        ({"2": ([], 5)}, "nextCursor: expected text"),
        ({"2": ([], "x" * 5000)}, "nextCursor: expected text of at most 4096"),
    ):
        pages |= changed
        with pytest.raises(Internal, match=f"the server broke its contract: tools/list: {fault}"):
            await mount(describe(server.url, name="other"))


async def test_a_server_without_tools_has_the_ops_that_it_has(session, serve, mount, describe):
    async def prompts(request, message):
        await request.send(json_of(result(message, {"prompts": [{"name": "p"}]})))

    server = await serve(capabilities={"prompts": {}}, methods={"prompts/list": prompts})
    await mount(describe(server.url))
    assert list((await session.describe(M))["inputs"]) == ["prompts/list", "prompts/get"]
    assert await session.invoke(M, "prompts/list", {}) == {"prompts": [{"name": "p"}]}
    with pytest.raises(UnsupportedOp, match="the server has no tool 'resources/list'"):
        await session.invoke(M, "resources/list", {})
    for args in ({"x": 1}, {"cursor": 1}):
        with pytest.raises(BadRequest, match="args"):
            await session.invoke(M, "prompts/list", args)
    with pytest.raises(BadRequest, match="'name' is a required property"):
        await session.invoke(M, "prompts/get", {})
    assert "tools/list" not in server.seen


async def test_arguments_of_a_prompt_that_are_null_are_left_out(session, serve, mount, describe):
    async def prompt(request, message):
        await request.send(json_of(result(message, {"messages": [], "got": message["params"]["arguments"]})))

    server = await serve(capabilities={"prompts": {}}, methods={"prompts/get": prompt})
    await mount(describe(server.url))
    args = {"name": "p", "arguments": {"a": "x", "b": None}}
    assert (await session.invoke(M, "prompts/get", args))["got"] == {"a": "x"}


async def test_a_tool_named_like_an_op_of_mcp_is_not_reached(session, remote):
    await remote(tool("resources/list"), tool("b"))
    assert list((await session.describe(M))["inputs"]) == ["b"]
    with pytest.raises(UnsupportedOp):
        await session.invoke(M, "resources/list", {})


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        ({}, r"args: 'text' is a required property"),
        ({"text": None}, r"args\.text: None is not of type 'string'"),
        ({"text": 5}, r"args\.text: 5 is not of type 'string'"),
        ({"text": "x", "more": 1}, r"args\.more: 1 is not of type 'array'"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_before_the_server_is_asked(session, remote, args, fault):
    server = await remote(tool("count", TEXT))
    with pytest.raises(BadRequest, match=fault):
        await session.invoke(M, "count", args)
    assert "tools/call" not in server.seen
    assert await session.invoke(M, "count", {"text": "x", "more": None}) == told('{"text": "x"}')


NULLS = {
    "optional": ({"properties": {"a": {"type": "string"}, "b": {}}}, {"a": None, "b": None, "c": 1}, {"c": 1}),
    "required": ({"required": ["a"], "properties": {"a": {"type": ["null", "string"]}}}, {"a": None}, {"a": None}),
    "falsy": (
        {"properties": {"a": {}, "b": {}, "c": {}}},
        {"a": 0, "b": "", "c": False},
        {"a": 0, "b": "", "c": False},
    ),
    "inside": ({"properties": {"a": {"type": "object"}}}, {"a": {"b": None}}, {"a": {"b": None}}),
    "not declared": ({}, {"a": None}, {"a": None}),
    "not allowed": ({"properties": {"a": {}}, "additionalProperties": False}, {"b": None}, {}),
    "by reference": (
        {"$ref": "#/$defs/x", "$defs": {"x": {"required": ["a"], "properties": {"a": {}, "b": {"type": "string"}}}}},
        {"a": None, "b": None},
        {"a": None},
    ),
    "in parts": (
        {"allOf": [{"required": ["a"], "properties": {"a": {}}}, {"properties": {"b": {"type": "string"}}}]},
        {"a": None, "b": None},
        {"a": None},
    ),
    "malformed": (
        {"required": 5, "properties": [1], "allOf": {"x": 1}, "$ref": "#/no/where"},
        {"a": None},
        {"a": None},
    ),
    "a circle": ({"$ref": "#", "properties": {"a": {}}}, {"a": None}, {}),
}


@pytest.mark.parametrize(("schema", "given", "sent"), NULLS.values(), ids=NULLS)
async def test_the_server_gets_no_null_for_an_optional_argument(session, remote, schema, given, sent):
    await remote(tool("count", {"type": "object", **schema}))
    assert await session.invoke(M, "count", given) == told(json.dumps(sent))


async def test_a_result_comes_with_structured_content_and_untouched_blocks(session, remote):
    block = {
        "type": "text",
        "text": "2",
        "annotations": {"audience": ["user"]},
        "vendor": {"x": [None]},
        "_meta": {"a": 1},
    }

    async def call(request, message):
        text = {"content": [block], "structuredContent": {"words": 2}, "isError": False, "_meta": {"b": 2}}
        await request.send(json_of(result(message, text)))

    await remote(tool("count", outputSchema=WORDS), call=call)
    counted = await session.invoke(M, "count", {})
    assert counted == {"content": [block], "structuredContent": {"words": 2}, "_meta": {"b": 2}}


@pytest.mark.parametrize(
    ("structured", "fault"),
    [
        ({}, "answered without structuredContent"),
        ({"structuredContent": {"words": "2"}}, r"answered structuredContent\.words: '2'"),
    ],
)
async def test_structured_content_that_does_not_fit_is_the_servers_fault(session, remote, structured, fault):
    async def call(request, message):
        await request.send(json_of(result(message, {"content": [], **structured})))

    await remote(tool("count", outputSchema=WORDS), call=call)
    with pytest.raises(Internal, match=f"the server broke its contract: count {fault}"):
        await session.invoke(M, "count", {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [{"type": "image", "data": "", "mimeType": "x/y"}, {"type": "text", "text": "no\n such  file"}],
            "no such file",
        ),
        ([], "count failed"),
    ],
)
async def test_a_tool_that_fails_is_a_failure_of_its_own_code_with_the_content(session, remote, content, words):
    async def call(request, message):
        await request.send(json_of(result(message, {"content": content, "isError": True})))

    await remote(tool("count", outputSchema=WORDS), call=call)
    with pytest.raises(KernelError, match=f"^tool_error: {words}$") as caught:
        await session.invoke(M, "count", {})
    assert caught.value.details == {"content": content, "module": M}


async def test_much_content_of_a_tool_that_fails_is_left_out_of_the_details(session, remote):
    async def call(request, message):
        text = {"type": "text", "text": "no such file " * 6000}
        await request.send(json_of(result(message, {"content": [text], "isError": True})))

    await remote(tool("count"), call=call)
    with pytest.raises(KernelError, match="^tool_error: no such file") as caught:
        await session.invoke(M, "count", {})
    assert caught.value.details.keys() == {"$omitted", "module"}


async def test_who_asks_and_where_in_the_trace_travels_along(session, remote, events):
    server = await remote(tool("count"))
    await session.invoke(M, "count", {})
    meta = server.requests[-1].params["params"]["_meta"]
    (event,) = events("module:invoke")
    assert (meta["session_id"], meta["request_id"]) == (event["session_id"], event["request_id"])
    assert meta["traceparent"] == f"00-{event['request_id']}-{event['span_id']}-01"
    assert "progressToken" not in meta
    async for _ in session.stream(M, "count", {}):
        pass
    assert server.requests[-1].params["params"]["_meta"]["progressToken"]


async def test_a_server_is_told_the_kernels_span_and_not_that_of_the_embedders_own_tracing(session, remote, events):
    server = await remote(tool("count"))
    ambient = trace.NonRecordingSpan(trace.SpanContext(7, 7, is_remote=False, trace_flags=trace.TraceFlags(1)))
    with trace.use_span(ambient):
        await session.invoke(M, "count", {})
        assert trace.get_current_span() is ambient
    (event,) = events("module:invoke")
    meta = server.requests[-1].params["params"]["_meta"]
    assert meta["traceparent"] == f"00-{event['request_id']}-{event['span_id']}-01"


async def test_ids_that_are_none_of_ours_are_left_out(serve, describe, open_one):
    server = await serve()
    connection = open_one(describe(server.url))
    await connection.start((), None)
    for params in (
        {},
        {"session_id": "s", "request_id": "req_x", "span_id": "0" * 16},
        {"request_id": "0" * 32},
    ):
        await connection.request("invoke", json.dumps({"op": "good", "args": {}, **params}).encode())
    await connection.close()
    metas = [
        each.params["params"].get("_meta")
        for each in server.requests
        if each.body and each.params.get("method") == "tools/call"
    ]
    assert metas == [None, {"session_id": "s", "request_id": "req_x"}, {"request_id": "0" * 32}]


@pytest.mark.parametrize(
    ("words", "may"),
    [
        ([], {"a", "b", "a:x"}),
        (["x-other:thing"], {"a", "b", "a:x"}),
        (["x-mcp:tool"], {"a", "b", "a:x"}),
        (["x-mcp:tool:a"], {"a", "a:x"}),
        (["x-mcp:tool:b", "x-mcp:tool:nobody"], {"b"}),
    ],
)
async def test_where_a_descriptor_names_tools_the_others_may_not_be_called(session, remote, words, may):
    await remote(tool("a"), tool("b"), tool("a:x"), fields={"capabilities": words})
    assert set((await session.describe(M))["inputs"]) == may
    for name in ("a", "b", "a:x"):
        if name in may:
            await session.invoke(M, name, {})
        else:
            with pytest.raises(Forbidden, match=f"x-mcp:tool:{name} was not granted"):
                await session.invoke(M, name, {})


async def test_policy_can_grant_tool_by_tool(session, serve, describe, events):
    async def some(event):
        return {"decision": "allow", "capabilities": ["x-mcp:tool:a"], "scope": "session"}

    await session.register_hook("policy:request", some)
    server = await serve(tools=[tool("a"), tool("b")])
    await session.mount("/mnt/tools", describe(server.url, capabilities=["x-mcp:tool"]))
    assert await session.invoke(M, "a", {}) == told("{}")
    with pytest.raises(Forbidden):
        await session.invoke(M, "b", {})
    assert not any(event["data"].get("unenforced") for event in events("policy:decision"))


async def test_tools_that_changed_are_listed_again(session, mount, describe, script):
    before = """
def changed(request):
    if request["params"]["name"] == "good":
        TOOLS.append({"name": "new", "inputSchema": {"type": "object"}})
        send({"method": "notifications/tools/list_changed"})
"""
    await mount(describe(script("changed(request)\nreply(request, told(op))", before=before)))
    with pytest.raises(UnsupportedOp):
        await session.invoke(M, "new", {})
    await session.invoke(M, "good", {})
    assert await session.invoke(M, "new", {}) == told("new")


CHANGING = """
def change(names, count=1):
    TOOLS[:] = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    for _ in range(count):
        send({"method": "notifications/tools/list_changed"})
"""


async def test_describe_tells_what_can_be_called_after_the_tools_changed(session, mount, describe, script, events):
    code = "change(args['names'], args.get('count', 1))\nreply(request, told(op))"
    await mount(describe(script(code, before=CHANGING)))
    for names in (["good", "new"], ["good"], ["good", "more"]):
        await session.invoke(M, "good", {"names": names, "count": 1000})
        described = await session.describe(M)
        assert list(described["inputs"]) == [tool["name"] for tool in described["mcp"]["tools"]] == names
    verified = [event for event in events("module:changed") if "status" in event and "data" in event]
    assert [event["data"]["added"] for event in verified] == [["new"], [], ["more"]]
    assert len(events("module:changed")) == 6


async def test_tools_that_change_do_not_go_beyond_what_was_granted(session, mount, describe, script):
    code = "change(args['names'])\nreply(request, told(op))"
    words = ["x-mcp:tool:good", "x-mcp:tool:bad"]
    await mount(describe(script(code, before=CHANGING), capabilities=words))
    await session.invoke(M, "good", {"names": ["good", "new"]})
    assert list((await session.describe(M))["inputs"]) == ["good"]
    with pytest.raises(Forbidden):
        await session.invoke(M, "new", {})


async def test_a_flawed_tool_that_comes_later_is_left_out_and_named(session, mount, describe, script):
    code = """
TOOLS.append({"name": "flawed", "inputSchema": None})
send({"method": "notifications/tools/list_changed"})
reply(request, told(op))
"""
    await mount(describe(script(code)))
    await session.invoke(M, "good", {})
    described = await session.describe(M)
    assert list(described["inputs"]) == ["good", "bad", "slow"]
    assert described["mcp"]["flawed"] == {"flawed": "inputSchema: expected an object"}


async def test_a_server_over_http_may_change_its_tools_in_the_middle_of_a_call(session, remote):
    async def call(request, message):
        server.tools = [tool("a"), tool("new")]
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        await request.send(stream_of(event(changed), event(result(message, told("fine")))))

    server = await remote(tool("a"), call=call)
    await session.invoke(M, "a", {})
    assert list((await session.describe(M))["inputs"]) == ["a", "new"]


async def test_a_server_over_http_may_change_its_tools_between_two_calls(session, remote, events):
    listening, change = asyncio.Event(), asyncio.Event()
    server = await remote(tool("a"), session="s1")
    answer = server.answer

    async def listen(request):
        if request.method != "GET":
            await answer(request)
            return
        await request.send(stream_of(": begun\n\n", end=False))
        listening.set()
        await change.wait()
        text = event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}).encode()
        await request.send(b"%x\r\n%b\r\n" % (len(text), text))
        await request.gone()

    server.answer = listen
    await asyncio.wait_for(listening.wait(), 10)
    server.tools = [tool("a"), tool("new")]
    change.set()
    while not events("module:changed"):
        await asyncio.sleep(0.005)
    assert list((await session.describe(M))["inputs"]) == ["a", "new"]


async def test_a_server_that_is_another_one_after_a_restart_is_described_anew(
    session, mount, describe, script, tmp_path, events
):
    mark = tmp_path / "again"
    before = f"""
if os.path.exists({str(mark)!r}):
    TOOLS = [{{"name": "good", "inputSchema": {{"type": "object"}}, "description": "better"}}]
open({str(mark)!r}, "w").close()
"""
    await mount(describe(script("reply(request, told(op))", before=before)))
    os.kill(events("module:start")[0]["data"]["pid"], signal.SIGKILL)
    while not events("module:exit"):
        await asyncio.sleep(0.005)
    assert list((await session.describe(M))["inputs"]) == ["good", "bad", "slow"]
    assert await session.invoke(M, "good", {}) == told("good")
    assert list((await session.describe(M))["inputs"]) == ["good"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_call_whose_headers_do_not_match_is_sent_once_again_after_a_listing(session, remote, times):
    mismatches = iter([True] * times)

    async def call(request, message):
        if next(mismatches, False):
            await request.send(json_of(error(message, -32020, "Header mismatch"), status=400))
        else:
            await request.send(json_of(result(message, told("fine"))))

    server = await remote(tool("a"), call=call)
    if times == 1:
        assert await session.invoke(M, "a", {}) == told("fine")
    else:
        with pytest.raises(Internal, match="a: Header mismatch"):
            await session.invoke(M, "a", {})
    assert server.seen.count("tools/list") == 2


async def test_progress_becomes_chunks(session, mount, describe, script):
    code = """
token = request["params"]["_meta"].get("progressToken")
for params in ({"progress": 1}, {"progress": 1.5, "total": 2, "message": "half"}, {"progress": 2, "message": None}):
    send({"method": "notifications/progress", "params": {"progressToken": token, **params}})
reply(request, told("fine"))
"""
    await mount(describe(script(code)))
    chunks = [{"progress": 1}, {"progress": 1.5, "total": 2, "message": "half"}, {"progress": 2}]
    assert [chunk async for chunk in session.stream(M, "good", {})] == chunks
    assert await session.invoke(M, "good", {}) == told("fine")


@pytest.mark.parametrize("before", ["", MODERN], ids=["2025", "2026"])
async def test_the_conformance_check_of_modules_passes(mount, describe, script, before):
    complete = {"resultType": "complete"} if before else {}
    command = script(f"reply(request, told('fine', **{complete}))", before=before)
    checks = await check_module(describe(command), {"good": {}, "bad": {}})
    assert {check.name: check.problem for check in checks if check.problem} == {}


async def test_instructions_of_a_server_are_told(session, serve, mount, describe):
    async def greet(request, message):
        info = {"name": "x", "version": "2"}
        told_ = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info, "instructions": "Be kind."}
        await request.send(json_of(result(message, told_)))

    server = await serve(methods={"initialize": greet})
    await mount(describe(server.url, version="3.0.0"))
    described = await session.describe(M)
    assert described["version"] == "3.0.0"
    assert described["mcp"] == {
        "name": "x",
        "version": "2",
        "protocol": "2025-06-18",
        "instructions": "Be kind.",
        "tools": [],
    }


async def test_a_revision_that_nobody_knows_is_refused(serve, mount, describe):
    async def greet(request, message):
        info = {"name": "x", "version": "2"}
        await request.send(
            json_of(result(message, {"protocolVersion": "1999", "capabilities": {}, "serverInfo": info}))
        )

    server = await serve(methods={"initialize": greet})
    with pytest.raises(Internal, match="Unsupported protocol version from the server: 1999"):
        await mount(describe(server.url))


async def test_a_server_that_does_not_say_who_it_is_has_no_version(session, mount, describe, script):
    await mount(describe(script("reply(request, told('x', resultType='complete'))", before=MODERN)))
    described = await session.describe(M)
    assert (described["version"], described["mcp"]["protocol"]) == (None, "2026-07-28")
    assert described["mcp"].keys().isdisjoint({"name", "version"})


def test_the_sdk_is_imported_when_a_server_is_started_and_not_before():
    code = """
import sys
from importlib.metadata import entry_points
(point,) = entry_points(group="amplifier_core.transports", name="mcp")
from amplifier_core import ModuleDescriptor
class Host:
    def shared(self, make): return make()
fields = {"name": "m", "kind": "tool", "capabilities": []}
for transport in ({"command": ["x"]}, {"url": "http://127.0.0.1/mcp"}):
    descriptor = ModuleDescriptor.from_mapping({**fields, "transport": {"type": "mcp", **transport}})
    point.load().open_transport(descriptor, lambda *_: None, Host())
    print("httpx" in sys.modules)
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded[:2] == ["False", "True"]  # httpx is for servers elsewhere
    assert "amplifier_transport_mcp._connection" in loaded
    assert not [name for name in loaded if re.match(r"(mcp|mcp_types|httpx2|jsonschema|pydantic|anyio)\b", name)]
