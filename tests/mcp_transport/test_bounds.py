"""What a server sends beyond a bound is refused, with the bound named, and nothing else is harmed."""

import asyncio
import json
import math
import time

import pytest
from tests.mcp_transport.servers import error, event, events, json_of, never, result, told

from amplifier_core import Internal, KernelError, Unreachable, UnsupportedOp
from amplifier_transport_mcp import _correlator, _stdio
from amplifier_transport_mcp._fields import Handler, Inputs
from amplifier_transport_mcp._listing import Listing
from amplifier_transport_mcp._messages import read_message
from amplifier_transport_mcp._pace import Pace
from amplifier_transport_mcp._result import check
from amplifier_transport_mcp._resumption import Resumption
from amplifier_transport_mcp._server_requests import pending
from amplifier_transport_mcp._sse import ID_MAX, Event

M = "/mnt/tools/m"
FINE = told("fine")
SCHEMA = {"type": "object"}


@pytest.fixture
def remote(serve, mount, describe):
    """Serve and mount a server that answers calls as given."""

    async def start(call=None, *, fields=(), **options):
        server = await serve(call, **options)
        await mount(describe(server.url, **dict(fields)), trusted=False)
        return server

    return start


# Messages.


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"id": "x" * 257, "method": "ping"}, "id: expected a number, or text of at most 256"),
        ({"id": 2**64, "method": "ping"}, "id: expected a number"),
        ({"id": True, "method": "ping"}, "id: expected a number"),
        ({"id": 1, "method": "x" * 257}, "method: expected at most 256"),
        ({"id": [1], "error": {"code": 1, "message": ""}}, "id: expected a number"),
        ({"id": 1, "error": {"code": 1}}, "expected a result that is an object, or an error"),
    ],
)
def test_a_message_whose_frame_is_too_large_is_none(message, fault):
    with pytest.raises(ValueError, match=fault):
        read_message({"jsonrpc": "2.0", **message})


def test_a_batch_is_no_message():
    with pytest.raises(ValueError, match=r"expected a message of JSON-RPC 2\.0"):
        read_message([{"jsonrpc": "2.0", "id": 1, "method": "ping"}] * 1000)


@pytest.mark.parametrize(
    "reply",
    [
        {"instructions": "x" * 1_100_000},
        {"capabilities": {"tools": {}, "experimental": {str(n): {} for n in range(600)}}},
    ],
    ids=["bytes", "values"],
)  # fmt: skip
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_handshake_that_is_too_large_is_refused(mount, describe, script, serve, reply, transport):
    async def greet(request, message):
        whole = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        await request.send(json_of(result(message, {**whole, **reply})))

    more = f"json.loads({json.dumps(reply)!r})"
    code = f"def initialized(request, inner=initialized):\n    return {{**inner(request), **{more}}}"
    if transport == "http":
        server = (await serve(methods={"initialize": greet})).url
    else:
        server = script("reply(request, told('fine'))", before=code)
    with pytest.raises(Internal, match="the handshake: a reply of more than 1048576 bytes or 1000 values"):
        await mount(describe(server))


async def test_of_a_large_error_the_code_and_the_beginning_are_left(session, remote):
    async def call(request, message):
        await request.send(json_of(error(message, -32602, "no " * 30_000, data=["x"] * 1000)))

    await remote(call)
    with pytest.raises(KernelError, match=r"bad: no no .*… \(cut: its error has \d+ bytes\)") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details == {"mcp_code": -32602, "module": M}


async def test_errors_that_nobody_comes_for_are_few(monkeypatch):
    monkeypatch.setattr(_correlator, "_ERRORS", 2)
    correlator = _correlator.Correlator(type("Inputs", (), {"handlers": {}, "roots": None})())
    names = [correlator.keep_error(Unreachable("x")) for _ in range(3)]
    assert [correlator.take_error(name) is not None for name in names] == [False, True, True]


# Requests of a server.

ASKS = """
def heard():
    return next(json.loads(line) for line in sys.stdin.buffer)
"""


async def test_many_requests_are_answered_one_after_the_other(session, mount, describe, script):
    code = """
out("".join(json.dumps({"jsonrpc": "2.0", "id": f"p{n}", "method": "ping"}) + "\\n" for n in range(300)))
answers = [heard() for n in range(300)]
reply(request, told(str(len({each["id"] for each in answers}))))
"""
    await mount(describe(script(code, before=ASKS)))
    assert await session.invoke(M, "good", {}) == told("300")


async def test_the_next_request_waits_for_an_answer_to_another(monkeypatch):
    """In a whole call the SDK may answer before there are too many."""
    monkeypatch.setattr(_correlator, "_ASKED", 2)
    correlator = _correlator.Correlator(Inputs(None, {}))
    for key in ("a", "b"):
        correlator.on_receive(read_message({"jsonrpc": "2.0", "id": key, "method": "ping"}), 50)
    room = asyncio.create_task(correlator.room())
    await asyncio.sleep(0.01)
    assert not room.done()
    correlator.on_send(read_message({"jsonrpc": "2.0", "id": "a", "result": {}}))
    await room


def test_a_request_whose_id_waits_for_an_answer_is_none():
    correlator = _correlator.Correlator(Inputs(None, {}))
    correlator.on_receive(read_message({"jsonrpc": "2.0", "id": "a", "method": "ping"}), 50)
    with pytest.raises(ValueError, match="id: the request 'a' waits for its answer"):
        correlator.on_receive(read_message({"jsonrpc": "2.0", "id": "a", "method": "ping"}), 50)


async def test_requests_wait_while_too_many_are_without_an_answer(session, mount, describe, script, monkeypatch):
    monkeypatch.setattr(_correlator, "_ASKED", 2)
    code = """
for n in range(20):
    send({"id": n, "method": "ping"})
    send({"id": n, "method": "ping"})
ids = set()
while len(ids) < 20:  # of two with the same id, the second may come after the first was answered
    ids.add(heard()["id"])
reply(request, told(str(len(ids))))
"""
    await mount(describe(script(code, before=ASKS)))
    assert await session.invoke(M, "good", {}, timeout=20) == told("20")


async def test_a_question_with_too_many_values_is_answered_as_invalid(session, mount, describe, script):
    code = """
send({"id": "a", "method": "sampling/createMessage", "params": {"messages": [0] * 6000, "maxTokens": 1}})
reply(request, told(str(heard()["error"]["code"])))
"""
    offer = {"sampling": {"path": "/mnt/tools/x", "op": "y"}}
    await mount(describe(script(code, before=ASKS), transport=offer))
    assert await session.invoke(M, "good", {}) == told("-32602")


async def test_a_server_that_does_not_read_its_answers_is_killed(session, mount, describe, script, monkeypatch, events):
    monkeypatch.setattr(_stdio, "_UNREAD", 10_000)
    monkeypatch.setattr("amplifier_transport_mcp._pace._AT_ONCE", 10**7)
    code = """
n = 0
while True:
    n += 1
    send({"id": "p" * 200 + str(n), "method": "ping"})
"""
    await mount(describe(script(code)))
    with pytest.raises(Internal, match="did not read 10000 bytes of answers"):
        await session.invoke(M, "bad", {}, timeout=30)


async def test_a_server_that_sends_too_much_unasked_waits(session, mount, describe, script, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._pace._AT_ONCE", 10)
    monkeypatch.setattr("amplifier_transport_mcp._pace._A_SECOND", 10_000)
    code = "for n in range(5000):\n    send({'method': 'notifications/message'})\nreply(request, told('fine'))"
    await mount(describe(script(code)))
    began = time.monotonic()
    assert await session.invoke(M, "good", {}) == FINE
    assert time.monotonic() - began > 0.2


async def test_events_that_come_too_fast_wait_too(session, remote, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._pace._AT_ONCE", 10)
    monkeypatch.setattr("amplifier_transport_mcp._pace._A_SECOND", 1000)

    async def call(request, message):
        log = {"jsonrpc": "2.0", "method": "notifications/message"}
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        await request.send(events(": x\n\n" * 50, *[event(log)] * 50, event(ping), event(result(message, FINE))))

    await remote(call)
    began = time.monotonic()
    assert await session.invoke(M, "bad", {}, timeout=20) == FINE
    assert time.monotonic() - began > 0.2


async def test_answers_to_a_server_over_http_are_sent_a_few_at_a_time(session, remote, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._transport._AT_ONCE", 2)
    at_once = most = 0
    done = asyncio.Event()
    count = 0

    async def answered(request, message):
        nonlocal at_once, most, count
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        count += 1
        if count == 12:
            done.set()
        await request.send(json_of(b"", status=202))

    async def call(request, message):
        pings = [event({"jsonrpc": "2.0", "id": n, "method": "ping"}) for n in range(12)]
        await request.send(events(*pings, end=False))
        await done.wait()
        data = event(result(message, FINE)).encode()
        await request.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    await remote(call, methods={"reply": answered})
    assert await session.invoke(M, "bad", {}, timeout=20) == FINE
    assert most < 12


def test_what_is_sent_unasked_is_paid_back_in_time():
    pace = Pace()
    assert pace.spend(100, 1) == 0
    assert 1 < pace.spend(10**7, 15_000) < 4


async def test_a_request_that_is_as_deep_as_it_may_be_cannot_be_passed_on():
    value: dict[str, object] = {"a": 1}
    for _ in range(196):
        value = {"a": value}
    inputs = Inputs(None, {"x": Handler("/p", "op")})
    with pytest.raises(Internal, match="its requests: nested more than 200"):
        await pending([("x", value)], inputs, {})
    large = await pending([("x", {"a": "b" * 300_000})], inputs, {})
    assert large.pending


async def test_a_large_line_that_is_broken_is_noise_or_the_end_of_its_call(session, mount, describe, script, events):
    code = """
out("x" * 300_000 + "\\n")
if op == "bad":
    out('{"id": ' + str(request["id"]) + ', "x": ' + "[" * 300_000 + "\\n")
else:
    reply(request, told("fine"))
"""
    await mount(describe(script(code)))
    with pytest.raises(Internal, match="nested more than 200 levels"):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {}) == FINE
    await session.unmount("/mnt/tools", "m")
    assert events("module:noise")[0]["data"]["count"] == 2


async def test_replies_that_nobody_waits_for_are_noise(session, mount, describe, script, events):
    code = """
send({"id": 99, "result": {}})
send({"id": "x", "error": {"code": 1, "message": "x"}})
send({"method": "notifications/progress", "params": {"progressToken": "nobody", "progress": 1}})
reply(request, told("fine"))
"""
    await mount(describe(script(code)))
    assert await session.invoke(M, "good", {}) == FINE
    await session.unmount("/mnt/tools", "m")
    assert events("module:noise")[0]["data"]["count"] == 2


# Tools.


def page(*tools, **more):
    return {"tools": list(tools), **more}


@pytest.mark.parametrize(
    ("flaw", "why"),
    [
        (None, "expected an object"),
        ({"name": ""}, "name: expected text of 1 to 256"),
        ({"name": "x" * 257}, "name: expected text"),
        ({"description": 5}, "description: expected text"),
        ({"inputSchema": None}, "inputSchema: expected an object"),
        ({"inputSchema": {"properties": {str(n): {} for n in range(6000)}}}, "inputSchema: expected at most 10000"),
        ({"outputSchema": [1]}, "outputSchema: expected an object"),
        ({"outputSchema": {"enum": list(range(20_000))}}, "outputSchema: expected at most 10000"),
        ({"annotations": [[]] * 20_000}, "more than 10000 values"),
        ({"name": "good"}, "name: 'good' is that of another tool"),
        ({"name": "prompts/get"}, "name: 'prompts/get' is that of a method of MCP"),
    ],
)  # fmt: skip
async def test_a_flawed_tool_takes_no_other_one_away(session, serve, mount, describe, events, flaw, why):
    tool = None if flaw is None else {"name": "flawed", "inputSchema": SCHEMA, **flaw}
    server = await serve(tools=[{"name": "good", "inputSchema": SCHEMA}, tool])
    await mount(describe(server.url))
    described = await session.describe(M)
    assert list(described["inputs"]) == ["good"]
    ((name, said),) = described["flawed"].items()
    assert described["mcp"]["flawed"] == described["flawed"] == events("mount:add")[-1]["data"]["flawed"]
    assert why in said
    if name:
        with pytest.raises(Internal, match="its tool"):
            await session.invoke(M, name, {})
    with pytest.raises(UnsupportedOp):
        await session.invoke(M, "other", {})
    assert (await session.invoke(M, "good", {}))["content"]


@pytest.mark.parametrize(
    ("pages", "fault"),
    [
        ([page(*[{}] * 5000)], "more than 4096 tools"),
        ([{"tools": "x"}], "tools: expected a list"),
        (
            [page({"name": name, "description": "x" * 600, "inputSchema": SCHEMA}) for name in "ab"],
            r"more than 1000 bytes \(limits",
        ),
    ],
)
def test_a_listing_that_is_too_large_is_refused(pages, fault):
    listing = Listing(1000)
    with pytest.raises(Internal, match=f"tools/list: .*{fault}"):
        for each in pages:
            listing.show(each, 100)


def test_what_is_wrong_is_told_of_a_hundred_tools():
    listing = Listing(1000)
    listing.show(page(*[{"name": f"x{n}"} for n in range(200)]), 0)
    assert len(listing.flawed) == 100


def test_a_tool_whose_headers_the_sdk_refuses_is_left_out():
    listing = Listing(1000)
    header = {"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": [1, [2]]}}
    shown = listing.show(page({"name": "a", "inputSchema": header}, {"name": "b", "inputSchema": {"x": [1]}}), 0)
    assert [tool["name"] for tool in shown["tools"]] == ["a"]
    listing.keep(set())
    assert [tool["name"] for tool in listing.tools] == ["b"]
    assert listing.flawed == {"a": "inputSchema: a wrong x-mcp-header"}


# Results.


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({}, "content: expected a list of objects"),
        ({"content": [1]}, "content: expected a list of objects"),
        ({"content": [{}]}, "content: expected blocks with a type"),
        ({"content": [{"type": "text"}]}, "and text in those of text"),
        ({"resultType": "input_required", "inputRequests": []}, "inputRequests: expected an object of at most 1000"),
        ({"resultType": "input_required", "inputRequests": {str(n): {} for n in range(1001)}}, "at most 1000"),
        ({"resultType": "input_required", "inputRequests": {"a": {}}}, "expected objects with a method"),
        (
            {"resultType": "input_required", "inputRequests": {"a": {"method": "x", "params": 1}}},
            "expected params that are an object",
        ),
        ({"resultType": "input_required", "requestState": 1}, "requestState: expected text"),
    ],
)
def test_a_result_of_the_wrong_shape_is_refused(wrong, fault):
    with pytest.raises(Internal, match=f"the server broke its contract: t: .*{fault}"):
        check("tools/call", wrong, "t")


def test_a_result_with_very_many_blocks_is_soon_checked():
    began = time.process_time()
    check("tools/call", {"content": [{"type": "text", "text": ""}] * 200_000}, "t")
    assert time.process_time() - began < 1


# Sessions and streams.


@pytest.mark.parametrize("name", ["x" * 1025, "a\tb", "\xff"])
async def test_the_name_of_a_session_is_short_and_printable(serve, mount, describe, name):
    server = await serve(session=name)
    with pytest.raises(Internal, match="mcp-session-id: expected at most 1024 printable ASCII"):
        await mount(describe(server.url))


async def test_an_id_of_an_event_that_no_header_can_have_is_refused(session, remote):
    ids = iter(("x" * 2000, "\xff"))

    async def call(request, message):
        await request.send(events(event("", id=next(ids))))

    await remote(call)
    for _ in range(2):
        with pytest.raises(Internal, match=f"ids of events of at most {ID_MAX} printable ASCII"):
            await session.invoke(M, "bad", {})


async def resume_with(server, answer):
    """Let a server answer what is resumed as given."""
    usual = server.answer

    async def any_request(request):
        if "last-event-id" in request.headers:
            await answer(request)
        else:
            await usual(request)

    server.answer = any_request


async def test_a_stream_is_resumed_a_few_times_without_a_message(session, remote, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._exchange._FIRST_DELAY", 0.001)
    seen = []

    async def call(request, message):
        await request.send(events(event("", id="e0", retry="0")))

    async def again(request):
        seen.append(request.headers["last-event-id"])
        await request.send(events(event("", id=f"e{len(seen)}", retry="0")))

    server = await remote(call)
    await resume_with(server, again)
    with pytest.raises(Unreachable, match="the stream was resumed 5 times without a message"):
        await session.invoke(M, "bad", {}, timeout=20)
    assert seen == ["e0", "e1", "e2", "e3", "e4"]


async def test_nothing_is_resumed_after_the_end_of_a_call(session, remote):
    asked = asyncio.Event()
    seen = []

    async def call(request, message):
        await request.send(events(event("", id="e0", retry="30000")))
        asked.set()

    async def again(request):
        seen.append(request)

    server = await remote(call)
    await resume_with(server, again)
    task = asyncio.create_task(session.invoke(M, "bad", {}))
    await asked.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await session.unmount("/mnt/tools", "m")
    assert not seen


async def test_delays_double_are_bounded_and_begin_anew_after_a_message(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(round(seconds, 1))

    monkeypatch.setattr("amplifier_transport_mcp._resumption.asyncio.sleep", sleep)
    monkeypatch.setattr("amplifier_transport_mcp._resumption.time.monotonic", lambda: 0.0)
    place = Resumption("u", 1.0, math.inf)
    await place.wait()
    place.end()
    for _ in range(8):
        await place.wait()
    place.note(Event(b"", b"x"), 10**9)
    await place.wait()
    place.note(Event(b"{}", b""), 0)
    await place.wait()
    assert slept == [0, 2, 4, 8, 16, 32, 60, 60, 60, 60, 1]
    assert place.id is None


async def test_the_servers_own_stream_may_say_anything_and_end(session, remote, monkeypatch):
    monkeypatch.setattr("amplifier_transport_mcp._listener._FIRST_DELAY", 0.01)
    asked = asyncio.Queue()
    answers = iter(
        (
            events(event("no JSON"), event("[1]"), event({"jsonrpc": "2.0", "id": None, "result": {}}, id="l1")),
            events("id: \xff\ndata: {}\n\n"),
            events(event({"jsonrpc": "2.0", "id": "s", "method": "ping"}), end=False),
        )
    )
    server = await remote(session="s1")
    usual = server.answer

    async def any_request(request):
        if request.method != "GET":
            await usual(request)
            return
        asked.put_nowait(request.headers.get("last-event-id"))
        if (answer := next(answers, None)) is None:
            await never(request, None)
        else:
            await request.send(answer)

    server.answer = any_request
    assert [await asyncio.wait_for(asked.get(), 20) for _ in range(2)] == [None, "l1"]
    while "reply" not in server.seen:  # to the ping
        await asyncio.sleep(0.005)
    assert (await session.invoke(M, "good", {}))["content"]
