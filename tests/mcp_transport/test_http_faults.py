"""What HTTP promises holds for servers of MCP too, beyond the table of faults."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest
from tests.http.raw import respond
from tests.mcp_transport.servers import error, event, events, json_of, never, result, told

from amplifier_core import BadRequest, Forbidden, Internal, ModuleDescriptor, Timeout, Unreachable, UnsupportedOp
from amplifier_transport_http import read_fields
from amplifier_transport_mcp._correlator import Correlator
from amplifier_transport_mcp._exchange import Exchange
from amplifier_transport_mcp._fields import Inputs
from amplifier_transport_mcp._transport import GuardedTransport

M = "/mnt/tools/m"
FINE = told("fine")


@pytest.fixture
def remote(serve, mount, describe):
    """Serve and mount a server that answers the tool `bad` as given, and every other call well."""

    async def start(bad=never, *, fields=(), **options):
        async def call(request, message):
            if message["params"]["name"] == "bad":
                await bad(request, message)
            else:
                await request.send(json_of(result(message, FINE)))

        server = await serve(call, **options)
        await mount(describe(server.url, **dict(fields)), trusted=False)
        return server

    return start


def answering(make):
    """Answer with bytes made of the message."""

    async def bad(request, message):
        await request.send(make(message))

    return bad


@pytest.mark.parametrize(
    ("code", "kind"), [(-32601, UnsupportedOp), (-32602, BadRequest), (-32603, Internal), (-32042, Forbidden)]
)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_an_error_of_mcp_decides_whatever_the_status(session, remote, code, kind, status):
    await remote(answering(lambda message: json_of(error(message, code, "no", data={"x": 1}), status=status)))
    with pytest.raises(kind, match="bad: no") as caught:
        await session.invoke(M, "bad", {})
    details = {
        "mcp_code": code,
        "mcp_data": {"x": 1},
        "module": M,
        **({} if status == 200 else {"http_status": status}),
    }
    assert caught.value.details == details


NO_REPLIES = {
    "accepted": (lambda _: respond(b"", 202), "HTTP 202 with an empty body"),
    "both": (lambda message: json_of({**result(message, FINE), "error": {}}), "either a result or an error"),
    "a request": (lambda _: json_of({"jsonrpc": "2.0", "id": 1, "method": "ping"}), "no reply"),
    "a list as result": (lambda message: json_of(result(message, [1])), "expected a result that is an object"),
    "too deep": (
        lambda message: json_of(text_of(message).replace(b'"fine"', b"[" * 50000 + b"]" * 50000)),
        "nested",
    ),
    "elsewhere": (lambda _: respond(b"", 302, ["location: http://x.invalid/mcp"]), "http://x.invalid/mcp not followed"),
    "html as event": (lambda _: events(event("<html>")), "HTML, not JSON"),
    "a packed event": (
        lambda _: respond(b"x", headers=["content-encoding: br", "content-type: text/event-stream"]),
        "the content-encoding 'br'",
    ),
    "another's event": (lambda message: events(event({**result(message, FINE), "id": 99})), "has the id 99"),
    "no UTF-8 event": (lambda message: events(event(text_of(message).decode().replace("fine", "\udcff"))), "(?i)utf-8"),
    "no content event": (lambda message: events(event(result(message, {"content": 1}))), "broke its contract: bad: "),
}


def text_of(message):
    """Write a good reply."""
    return json.dumps(result(message, FINE)).encode()


@pytest.mark.parametrize(("make", "what"), NO_REPLIES.values(), ids=NO_REPLIES)
async def test_success_without_a_reply_is_the_servers_fault_and_says_what_came_instead(session, remote, make, what):
    await remote(answering(make))
    with pytest.raises(Internal, match=what):
        await session.invoke(M, "bad", {})
    assert await session.invoke(M, "good", {}) == FINE


@pytest.mark.parametrize(
    "cut",
    [b"", b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"id"', events(event("{}").rstrip(), end=False)],
    ids=["nothing", "half a body", "half an event"],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_cut_short_is_unreachable_for_that_call_alone(session, remote, cut, reset):
    async def bad(request, message):
        await request.send(cut)
        if reset:
            request.reset()
        else:
            request.writer.close()

    server = await remote(bad, session="s1")
    slow = asyncio.create_task(session.invoke(M, "bad", {}))
    with pytest.raises(Unreachable, match=server.url) as caught:
        await slow
    assert caught.value.details["url"] == server.url
    assert await session.invoke(M, "good", {}) == FINE
    assert server.seen.count("initialize") == 1  # the session goes on


async def test_an_answer_may_be_packed_with_gzip_although_that_was_not_asked_for(session, remote):
    async def bad(request, message):
        stream = message["params"]["arguments"]["stream"]
        body = f"data: {text_of(message).decode()}\n\n".encode() if stream else text_of(message)
        kind = "text/event-stream" if stream else "application/json"
        await request.send(respond(gzip.compress(body), headers=["content-encoding: gzip", f"content-type: {kind}"]))

    await remote(bad)
    for stream in (False, True):
        assert await session.invoke(M, "bad", {"stream": stream}) == FINE


@pytest.mark.parametrize("broken", [{"code": []}, {"code": "x", "message": 5}, [], "no", {"code": -32600.5}])
async def test_an_error_that_is_none_of_mcp_leaves_a_failure_to_its_status(session, remote, broken):
    await remote(answering(lambda message: json_of({**error(message, 0, ""), "error": broken}, status=503)))
    with pytest.raises(Unreachable, match="answered HTTP 503 with ") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["http_status"] == 503


async def test_a_failure_without_an_error_of_mcp_says_so(session, remote):
    await remote(answering(lambda _: json_of({"detail": "x"}, status=503)))
    with pytest.raises(Unreachable, match="answered HTTP 503 with no error of MCP") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["body"] == '{"detail": "x"}'


async def test_a_call_that_breaks_leaves_those_beside_it_alone(session, remote):
    waiting = asyncio.Event()

    async def bad(request, message):
        if message["params"]["arguments"].get("wait"):
            await waiting.wait()
            await request.send(events(event(result(message, FINE))))
        else:
            request.reset()

    await remote(bad)
    beside = [asyncio.create_task(session.invoke(M, "bad", {"wait": True})) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(Unreachable):
            await session.invoke(M, "bad", {})
    waiting.set()
    assert await asyncio.gather(*beside) == [FINE] * 5


async def test_a_server_that_is_not_there_is_unreachable_and_found_later(session, serve, mount, describe):
    server = await serve()
    await mount(describe(server.url))
    await server.stop()
    for _ in range(2):
        with pytest.raises(Unreachable, match=server.url):
            await session.invoke(M, "good", {})
    await serve(port=server.port)
    assert (await session.invoke(M, "good", {"a": 1}))["content"][0]["text"] == '{"a": 1}'


async def test_a_server_that_refuses_the_handshake_says_with_which_status(serve, mount, describe):
    async def refuse(request, message):
        await request.send(respond({"error": "invalid_token"}, 401, ["www-authenticate: Bearer"]))

    server = await serve(methods={"initialize": refuse, "server/discover": refuse})
    with pytest.raises(Forbidden, match="answered HTTP 401") as caught:
        await mount(describe(server.url))
    assert (caught.value.details["http_status"], caught.value.details["body"]) == (401, '{"error": "invalid_token"}')


@pytest.mark.parametrize("status", [404, 400])
async def test_a_session_that_the_server_has_forgotten_is_begun_again_without_a_failure(session, remote, status):
    server = await remote(session="s1")
    server.session = "s2"
    known = server.call

    async def forgetful(request, message):
        if request.headers["mcp-session-id"] != "s2":
            await request.send(json_of(error(message, -32001, "Session not found"), status=status))
        else:
            await known(request, message)

    server.call = forgetful
    assert await session.invoke(M, "good", {}) == FINE
    assert server.seen.count("initialize") == 2
    await session.unmount("/mnt/tools", "m")
    assert server.requests[-1].headers["mcp-session-id"] == "s2"
    assert server.seen[-1] == "DELETE"


PAGES = {
    "nothing": b"",
    "html": b"<html>gone</html>",
    "json": b'{"detail": "Not Found"}',
    "an error without an id": b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "No session"}}',
    "an error with an id": b'{"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "no"}}',
    "a message that is no error": b'{"jsonrpc": "2.0", "id": 7, "method": "ping"}',
    "too large": b"<html>" + b"x" * 2_000_000,
}


@pytest.mark.parametrize("headers", [[], ["content-encoding: gzip"], ["content-encoding: br"]], ids=["", "gzip", "br"])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
async def test_a_session_is_begun_again_whatever_the_page_looks_like(session, remote, page, headers):
    server = await remote(session="s1", fields={"limits": {"message_bytes": 1_000_000}})
    server.session = "s2"
    known = server.call

    async def forgetful(request, message):
        if request.headers["mcp-session-id"] == "s2":
            await known(request, message)
        else:
            await request.send(respond(page, 404, headers))

    server.call = forgetful
    assert await session.invoke(M, "good", {}) == FINE
    assert server.seen.count("initialize") == 2


@pytest.mark.parametrize("page", [b"Invalid session ID", b'{"detail": "unknown session"}'])
async def test_a_session_is_begun_again_if_a_page_says_so_in_words(session, remote, page):
    server = await remote(session="s1")
    server.session = "s2"
    known = server.call

    async def forgetful(request, message):
        if request.headers["mcp-session-id"] == "s2":
            await known(request, message)
        else:
            await request.send(respond(page, 400))

    server.call = forgetful
    assert await session.invoke(M, "good", {}) == FINE


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [(404, -32601, "Unknown tool", UnsupportedOp), (400, -32602, "args.session: required", BadRequest)],
)
async def test_an_answer_of_mcp_to_the_very_call_ends_no_session(session, remote, status, code, message, kind):
    bad = answering(lambda asked: json_of(error(asked, code, message), status=status))
    server = await remote(bad, session="s1")
    with pytest.raises(kind, match=message):
        await session.invoke(M, "bad", {})
    assert server.seen.count("initialize") == 1


@pytest.mark.parametrize(("status", "kind"), [(401, Forbidden), (503, Unreachable), (504, Timeout), (413, BadRequest)])
@pytest.mark.parametrize(
    ("page", "headers"),
    [
        (b"", ["content-encoding: gzip"]),
        (b"<html>", ["content-encoding: gzip"]),
        (gzip.compress(b"<html>")[:-5], ["content-encoding: gzip"]),
        (b"\x0b\x0f\x80", ["content-encoding: br"]),
        (b"x" * 2_000_000, []),
    ],
    ids=["no gzip", "called gzip", "cut", "br", "too large"],
)
async def test_the_status_decides_whatever_its_page_looks_like(session, remote, status, kind, page, headers):
    bad = answering(lambda _: respond(page, status, headers))
    await remote(bad, fields={"limits": {"message_bytes": 1_000_000}}, session="s1")
    with pytest.raises(kind, match=f"answered HTTP {status}") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["http_status"] == status
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_status_counts_even_if_its_page_breaks_off(session, remote):
    async def bad(request, message):
        await request.send(b"HTTP/1.1 413 No\r\ncontent-length: 500\r\n\r\n<html>")
        request.writer.close()

    await remote(bad)
    with pytest.raises(BadRequest, match="answered HTTP 413 with a page that breaks off"):
        await session.invoke(M, "bad", {})


@pytest.mark.parametrize("named", [{"id": None}, {}, {"id": ""}], ids=["null", "no id", "empty"])
async def test_an_error_without_an_id_answers_the_request_that_it_came_for(session, remote, named):
    said: dict[str, Any] = {"jsonrpc": "2.0", **named, "error": {"code": -32700, "message": "out of stack"}}

    async def bad(request, message):
        await request.send(events(event(said)) if message["params"]["arguments"] else json_of(said))

    await remote(bad)
    for args in ({}, {"stream": True}):
        with pytest.raises(Internal, match="bad: out of stack"):
            await session.invoke(M, "bad", args)


async def close(request, message):
    request.writer.close()


async def close_a_stream(request, message):
    await request.send(events(": begun\n\n"))


async def begin_a_stream(request, message):
    await request.send(events(": begun\n\n", end=False))
    await request.gone()


async def accept(request, message):
    await request.send(respond(b"", 202))


@pytest.mark.parametrize("first", [close, close_a_stream, begin_a_stream, accept])
async def test_a_server_before_2026_may_do_anything_at_the_first_question(
    session, serve, mount, describe, monkeypatch, first
):
    monkeypatch.setattr("amplifier_transport_mcp._transport.SILENCE_SECONDS", 0.3)
    server = await serve(methods={"server/discover": first})
    await mount(describe(server.url))
    assert (await session.invoke(M, "good", {}))["content"]


async def test_a_server_that_is_silent_at_the_first_question_is_greeted_as_before_2026(
    session, serve, mount, describe, monkeypatch
):
    monkeypatch.setattr("amplifier_transport_mcp._transport.SILENCE_SECONDS", 0.3)
    server = await serve(methods={"server/discover": never})
    await mount(describe(server.url))
    assert (await session.invoke(M, "good", {}))["content"]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_call_that_was_given_up_is_not_resumed(session, remote, waits):
    """The server takes its time for the notification, so that the call is given up while it waits to be resumed."""
    asked_again, gone = asyncio.Event(), asyncio.Event()

    async def bad(request, message):
        await request.send(events(event("", id="e1", retry="300")))

    server = await remote(bad, session="s1", methods={"notifications/cancelled": never})
    answer = server.answer

    async def resume(request):
        if request.headers.get("last-event-id") != "e1":
            await answer(request)
            return
        asked_again.set()
        await request.gone()
        gone.set()

    server.answer = resume
    call = asyncio.create_task(session.invoke(M, "bad", {}))
    while "tools/call" not in server.seen:
        await asyncio.sleep(0.005)
    if waits:
        await asked_again.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    if waits:
        await asyncio.wait_for(gone.wait(), 10)
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked_again.wait(), 0.6)
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_session_that_is_forgotten_each_time_is_a_failure(session, remote):
    server = await remote(session="s1")

    async def forgetful(request, message):
        await request.send(respond(b"", 404))

    server.call = forgetful
    with pytest.raises(Unreachable, match="the server ended the session"):
        await session.invoke(M, "good", {})


async def test_a_message_may_be_as_large_as_the_limit(session, remote):
    large = told("x" * 3_000_000)

    async def bad(request, message):
        kind = message["params"]["arguments"]["kind"]
        await request.send(events(event(result(message, large))) if kind == "sse" else json_of(result(message, large)))

    await remote(bad)
    for kind in ("sse", "json"):
        assert await session.invoke(M, "bad", {"kind": kind}) == large


@pytest.mark.parametrize("kind", ["json", "sse", "line"])
async def test_a_message_over_the_limit_is_the_servers_fault(session, remote, kind):
    async def bad(request, message):
        text = told("x" * 200_000)
        made = {
            "json": lambda: json_of(result(message, text)),
            "sse": lambda: events(event(result(message, text))),
            "line": lambda: events("data: " + "x" * 200_000, end=False),
        }
        await request.send(made[kind]())
        await request.gone()

    await remote(bad, fields={"limits": {"message_bytes": 100_000}})
    with pytest.raises(Internal, match=r"more than 100000 bytes \(limits.message_bytes\)") as caught:
        await session.invoke(M, "bad", {})
    assert caught.value.details["limit"] == 100_000
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_server_that_is_not_well_is_not_mounted(serve, mount, describe):
    async def unwell(request, message):
        await request.send(respond(b"", 500))

    server = await serve(methods={"ping": unwell})
    with pytest.raises(Internal, match="answered HTTP 500"):
        await mount(describe(server.url))


async def test_a_server_may_ask_in_the_middle_of_any_reply(session, serve, mount, describe):
    async def listing(request, message):
        ask = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        tools = [{"name": "good", "inputSchema": {"type": "object"}}]
        await request.send(events(event(ask), event(result(message, {"tools": tools}))))

    server = await serve(methods={"tools/list": listing})
    await mount(describe(server.url))
    assert await session.invoke(M, "good", {}) == told("{}")
    assert "reply" in server.seen


async def test_events_may_come_in_any_framing(session, remote):
    async def bad(request, message):
        text = json.dumps(result(message, FINE), indent=1)
        split = "".join(f"data:{line}\r\n" for line in text.splitlines())
        progress = {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": "x", "progress": 1},
        }
        start = [
            ": a comment\n\n",
            "event: ping\ndata: no message\n\n",
            "retry: 10\n\n",
            event(progress, event="message"),
        ]
        await request.send(events(*start, *split, "\r\n"))

    await remote(bad)
    assert await session.invoke(M, "bad", {}) == FINE


async def test_a_stream_that_ends_is_resumed_where_it_was(session, remote, serve):
    asked = []

    async def bad(request, message):
        asked.append(message)
        await request.send(events(event("", id="e1", retry="1")))

    server = await remote(bad, session="s1")
    answer = server.answer

    async def resume(request):
        if request.headers.get("last-event-id") == "e1":
            await request.send(events(event(result(asked[0], FINE), id="e2")))
        else:
            await answer(request)

    server.answer = resume
    assert await session.invoke(M, "bad", {}) == FINE


async def test_a_stream_that_cannot_be_resumed_is_unreachable(session, remote):
    async def bad(request, message):
        await request.send(events(event("", id="e1", retry="1")))

    await remote(bad, session="s1")
    with pytest.raises(Unreachable, match="bad: .*reconnection attempts were exhausted"):
        await session.invoke(M, "bad", {})


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancel_reaches_the_server_and_closes_the_stream(session, remote, begun):
    waiting, gone = asyncio.Event(), asyncio.Event()

    async def bad(request, message):
        if begun:
            await request.send(events(": begun\n\n", end=False))
        waiting.set()
        await request.gone()
        gone.set()

    server = await remote(bad)
    task = asyncio.create_task(session.invoke(M, "bad", {}))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(gone.wait(), 10)
    cancelled = next(
        each.params for each in server.requests if each.body and each.params.get("method") == "notifications/cancelled"
    )
    (called,) = [each.params for each in server.requests if each.body and each.params.get("method") == "tools/call"]
    assert cancelled["params"]["requestId"] == called["id"]
    assert await session.invoke(M, "good", {}) == FINE


async def test_a_server_of_2026_learns_of_a_cancel_by_the_close_alone(session, remote):
    waiting, gone = asyncio.Event(), asyncio.Event()

    async def bad(request, message):
        waiting.set()
        await request.gone()
        gone.set()

    page = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}

    async def discover(request, message):
        await request.send(
            json_of(result(message, {**page, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}))
        )

    async def tools(request, message):
        await request.send(
            json_of(result(message, {**page, "tools": [{"name": "bad", "inputSchema": {"type": "object"}}]}))
        )

    server = await remote(bad, methods={"server/discover": discover, "tools/list": tools})
    task = asyncio.create_task(session.invoke(M, "bad", {}))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(gone.wait(), 10)
    assert "notifications/cancelled" not in server.seen


async def test_notifications_and_the_end_of_a_session_delay_no_call(session, remote):
    """A server that does not answer notifications, nor the end of its session."""
    server = await remote(methods={"notifications/cancelled": never}, session="s1")
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.2)
    assert await session.invoke(M, "good", {}) == FINE
    answer = server.answer

    async def silent(request):
        await (request.gone() if request.method == "DELETE" else answer(request))

    server.answer = silent
    await session.unmount("/mnt/tools", "m")


async def test_unmounting_fails_what_is_in_flight(session, remote):
    await remote()
    flight = asyncio.create_task(session.invoke(M, "bad", {}))
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    await session.unmount("/mnt/tools", "m")
    with pytest.raises(Unreachable, match="the module was unmounted"):
        await flight


async def test_nothing_is_read_from_the_environment_and_no_cookie_is_kept(session, remote, monkeypatch, tmp_path):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("default login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def bad(request, message):
        await request.send(json_of(result(message, FINE), ["set-cookie: a=b"]))

    server = await remote(bad, fields={"transport": {"headers": {"x-key": "secret"}}})
    for _ in range(2):
        assert await session.invoke(M, "bad", {}) == FINE
    last = server.requests[-1].headers
    assert last["x-key"] == "secret"
    assert last["accept-encoding"] == "identity"
    assert not {"cookie", "authorization"} & last.keys()


async def test_twenty_calls_at_once_share_nothing(session, serve, mount, describe):
    server = await serve()
    await mount(describe(server.url))
    results = await asyncio.gather(*(session.invoke(M, "good", {"n": n}) for n in range(20)))
    assert [json.loads(each["content"][0]["text"]) for each in results] == [{"n": n} for n in range(20)]


async def test_tls_trusts_whom_the_descriptor_names(session, serve, mount, describe, tmp_path):
    import ssl  # noqa: PLC0415

    import trustme  # noqa: PLC0415

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = await serve(tls=tls)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await mount(describe(server.url))
    await mount(describe(server.url, transport={"ca": "ca.pem"}, base=tmp_path))
    assert (await session.invoke(M, "good", {}))["content"]
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(Unreachable, match="no certificates to trust in"):
        await mount(describe(server.url, name="other", transport={"ca": "empty.pem"}, base=tmp_path))


async def test_a_connection_that_was_never_started_can_be_closed(describe, open_one):
    connection = open_one(describe("http://127.0.0.1:9/mcp"))
    assert not connection.local
    assert connection.usage(exact=True) is None
    await connection.close()
    await connection.close()


async def test_an_exchange_that_is_aborted_before_its_response_is_answered_in_the_servers_place():
    """In a whole call the SDK may be faster with its own cancellation."""
    correlator = Correlator(Inputs(None, {}))
    request = httpx.Request("POST", "http://127.0.0.1:9/mcp")
    exchange = Exchange(7, request, 1000, correlator, asyncio.Event())
    answer = asyncio.create_task(exchange.run(for_ever()))
    await asyncio.sleep(0)
    exchange.abort()
    reply = json.loads((await answer).content)
    assert reply["id"] == 7
    fault = correlator.take_error(reply["error"]["data"])
    assert isinstance(fault, Unreachable)
    assert fault.message == "the caller has given up"


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def test_a_transport_that_was_never_asked_is_closed_like_any_other():
    fields = {
        "name": "m",
        "kind": "tool",
        "capabilities": [],
        "transport": {"type": "http", "url": "http://127.0.0.1:9"},
    }
    await GuardedTransport(
        read_fields(ModuleDescriptor.from_mapping(fields)), 1000, Correlator(Inputs(None, {}))
    ).aclose()
