"""The faults of HTTP modules, in servers of MCP: the same codes, as soon.

Owns the cases. A server speaks JSON-RPC, so what it answers names the request; a stream is one of events.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.faults.case import Case
from tests.faults.of_http import (
    AT_ONCE,
    CHUNKED,
    CODES,
    HEAD,
    HUNG_UP,
    LIMITS,
    NOT_HTTP,
    PROMPT,
    SIBLINGS,
    case,
    drips,
    floods,
    hangs,
    hangs_up,
    redirects,
    resets,
    sends,
)
from tests.faults.of_mcp_stdio import structured
from tests.faults.stage import MODULE
from tests.http.raw import certified, respond
from tests.mcp_transport.servers import McpServer, error, event, events, json_of, result

from amplifier_core import ModuleDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.of_http import Fault
    from tests.faults.stage import Stage
    from tests.http.raw import Request

JSON = "content-type: application/json"
STREAM = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NOTE = b": nothing\n\n"
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "bad")]


def remote(url: str, *, transport: Any = (), **fields: Any) -> ModuleDescriptor:
    """Describe the server of a case."""
    told = {
        "name": "m",
        "kind": "tool",
        "capabilities": [],
        "transport": {"type": "mcp", "url": url, **dict(transport)},
    }
    return ModuleDescriptor.from_mapping({**told, **fields})


def of(message: Any, value: Any) -> Any:
    """Make the reply of a tool."""
    return result(message, {"content": [], "structuredContent": value})


async def echo(request: Request, message: Any) -> None:
    """Give back the arguments."""
    await request.send(json_of(of(message, message["params"]["arguments"])))


async def start(stage: Stage, bad: Fault = resets, *, limits: Any = None, tls: Any = None, **options: Any) -> McpServer:
    """Start and mount a server that misbehaves at the tool ``bad``; siblings are answered when the fault was met."""
    met = asyncio.Event()

    async def call(request: Request, message: Any) -> None:
        params = message["params"]
        if params["name"] == "bad":
            try:
                await bad(request)
            finally:
                met.set()
            return
        if "sibling" in params["arguments"]:
            await met.wait()
        await echo(request, message)

    server = await serve(stage, McpServer(call, tools=TOOLS, **options), tls=tls)
    await stage.mount(remote(server.url, limits=limits or {}))
    return server


async def serve(stage: Stage, server: McpServer, **options: Any) -> McpServer:
    """Have a server listen for the rest of the case."""
    stage.plain = structured
    await server.start(**options)
    stage.later(server.stop)
    return server


def call(
    name: str, code: str, bad: Fault, *, bound: float = AT_ONCE, limits: Any = None, told: bool = False, **expected: Any
) -> Case:
    """Make a case of one call, with siblings in flight on the same server; ``told``: its connection ends."""

    async def play(stage: Stage) -> None:
        server = await start(stage, bad, limits=limits)
        await stage.bad(siblings=SIBLINGS)
        (request, *_) = (each for each in server.requests if each.body and named(each.params) == "bad")
        if told:
            async with asyncio.timeout(2):
                await request.ended.wait()

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def named(message: Any) -> Any:
    """Name the tool that a message calls."""
    return message.get("params", {}).get("name")


def answers(make: Callable[[Any], bytes], *, hang_up: bool = False) -> Fault:
    """Answer with bytes made of the message."""

    async def answer(request: Request) -> None:
        await request.send(make(request.params))
        if hang_up:
            request.writer.close()

    return answer


def fine(name: str, make: Callable[[Any], bytes], *, hang_up: bool = False) -> Case:
    """Make a case of a call that may not fail."""
    return call(name, "ok", answers(make, hang_up=hang_up), result={"x": "ab"})


def late(name: str, bad: Fault) -> Case:
    """Make a case of an answer that is not there at the deadline; the server is told of it."""
    return call(name, "timeout", bad, bound=PROMPT, deadline=0.3, told=True)


def body(name: str, make: Callable[[Any], bytes], says: str, *headers: str, **expected: Any) -> Case:
    """Make a case of a body that is no reply, under a status of success."""
    whole = answers(lambda message: respond(make(message), headers=[JSON, *headers]))
    return call(name, "internal", whole, says=says, **expected)


def cut(name: str, data: bytes, says: str) -> Case:
    """Make a case of an answer that is no whole HTTP/1.1 before the server hangs up."""
    return call(name, "unreachable", hangs_up(data), says=says, told=True)


def elsewhere(name: str, location: str, status: int) -> Case:
    """Make a case of a redirect that is not followed."""
    return call(name, "internal", redirects(location, status), details={"http_status": status})


def at_mount(name: str, code: str, method: str, bad: Fault, **expected: Any) -> Case:
    """Make a case of a server that fails its mount, by the method that it answers wrongly."""

    async def special(request: Request, _message: Any) -> None:
        await bad(request)

    async def play(stage: Stage) -> None:
        methods = {method: special} if method != "initialize" else {method: special, "server/discover": special}
        server = await serve(stage, McpServer(methods=methods))
        await stage.provoke(stage.mount(remote(server.url), expected.get("deadline") or 60))
        assert await stage.session.mounts() == []
        await start(stage)

    return Case(name=name, code=code, bound=PROMPT if "deadline" in expected else 1.0, play=play, **expected)


def statuses() -> list[Case]:
    """Make the cases of every status, without a body, and with an error that means less than the status."""
    found = []
    for code, numbers in CODES.items():
        for status in numbers:
            details = {"http_status": status}
            empty, own = sends(respond(b"", status)), sends(json_of(error({"id": None}, -32000, "no"), status=status))
            found.append(call(f"status {status}, no body", code, empty, details=details))
            if status >= 400:
                found.append(call(f"status {status}, an error without a meaning", code, own, details=details))
    return found


@case("connection refused", "unreachable", says="ConnectionRefusedError")
async def refused(stage: Stage) -> None:
    server = await start(stage)
    await server.stop()
    await stage.bad()
    await serve(stage, McpServer(echo, tools=TOOLS), port=server.port)


@case("connection refused at the mount", "unreachable", 1.0, says="ConnectionRefusedError")
async def refused_mount(stage: Stage) -> None:
    server = await serve(stage, McpServer())
    await server.stop()
    await stage.provoke(stage.mount(remote(server.url)))
    await start(stage)


@case("a name that does not resolve", "unreachable", 1.5, says="gaierror")
async def no_such_host(stage: Stage) -> None:
    await stage.provoke(stage.mount(remote("http://no-such-host.invalid:8080/mcp")))
    await start(stage)


@case("a session that is forgotten", "ok", result={"next": 7})
async def forgotten(stage: Stage) -> None:
    server = await start(stage, session="one")
    server.session = "two"

    async def strict(request: Request, message: Any) -> None:
        known = request.headers["mcp-session-id"] == "two"
        await (echo(request, message) if known else request.send(respond(b"", 404)))

    server.call = strict
    await stage.provoke(stage.call("good", {"next": 7}))


@case("late reply", "timeout", PROMPT, deadline=0.3)
async def late_reply(stage: Stage) -> None:
    cancelled = asyncio.Event()

    async def answer(request: Request) -> None:
        await cancelled.wait()
        await request.send(json_of(of(request.params, {"x": "late"})))

    async def heard(request: Request, _message: Any) -> None:
        cancelled.set()
        await request.send(respond(b"", 202))

    await start(stage, answer, methods={"notifications/cancelled": heard})
    await stage.bad(siblings=SIBLINGS)


@case("a second reply in the same bytes", "ok", result={"x": "ab"})
async def second_reply(stage: Stage) -> None:
    await start(stage, answers(lambda message: GOOD(message) + json_of(of(message, {"x": "second"}))))
    await stage.bad()


@case("events cut before their end", "unreachable", says=HUNG_UP)
async def cut_stream(stage: Stage) -> None:
    """See that the progress that came is not lost."""
    await start(stage, answers(lambda message: events(progress(message, 1), progress(message, 2))))
    stream = stage.session.stream(MODULE, "bad", {})
    seen = []

    async def read() -> None:
        async for chunk in stream:
            seen.append(chunk)

    await stage.provoke(stage.note(read()))
    assert seen == [{"progress": 1}, {"progress": 2}], seen


@case("5,000 notifications of progress at once", "ok", 4.0, result=[{"progress": n} for n in range(5_000)])
async def much_progress(stage: Stage) -> None:
    def make(message: Any) -> bytes:
        return events("".join(progress(message, n) for n in range(5_000)), event(of(message, {})))

    await start(stage, answers(make))
    stream = stage.session.stream(MODULE, "bad", {})

    async def read() -> list[Any]:
        return [chunk async for chunk in stream]

    await stage.provoke(read())
    assert structured(await stage.note(stream.result())) == {}


def progress(message: Any, n: int) -> str:
    """Make a notification of progress."""
    params = {"progressToken": message["params"]["_meta"]["progressToken"], "progress": n}
    return event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def tls(name: str, code: str, host: str = "127.0.0.1", *, trusted: bool = True, **expected: Any) -> Case:
    """Make a case of a real TLS server, with a certificate for 127.0.0.1 of an authority of its own."""

    async def play(stage: Stage) -> None:
        ca, context = certified(stage.folder)
        server = await serve(stage, McpServer(echo, tools=TOOLS), tls=context)
        transport = {"ca": str(ca)} if trusted else {}
        await stage.provoke(stage.mount(remote(f"https://{host}:{server.port}/mcp", transport=transport)))
        if code != "ok":
            await stage.mount(remote(server.url, transport={"ca": str(ca)}))

    return Case(name=name, code=code, bound=1.5, play=play, **expected)


def GOOD(message: Any) -> bytes:  # noqa: N802 - it stands for the bytes
    """Make a good answer."""
    return json_of(of(message, {"x": "ab"}))


def text(message: Any) -> bytes:
    """Make the body of a good answer."""
    return json.dumps(of(message, {"x": "ab"})).encode()


def chunked(message: Any) -> bytes:
    """Make a good answer in two chunks."""
    data = text(message)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\n" + JSON.encode() + b"\r\n\r\n")
    return head + b"8;x=1\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (data[:8], len(data) - 8, data[8:])


DEEP = b"[" * 50_000 + b"]" * 50_000
TOO_LARGE = "answered with more than 1000000 bytes (limits.message_bytes)"

CASES = [
    refused,
    refused_mount,
    no_such_host,
    at_mount("handshake that hangs", "timeout", "initialize", hangs(), deadline=0.5),
    at_mount("refuses us", "forbidden", "initialize", sends(respond(b"", 401)), details={"http_status": 401}),
    at_mount("is a web page", "internal", "initialize", sends(respond(b"<html>")), says="HTML, not JSON"),
    at_mount("health that hangs", "timeout", "ping", hangs(), deadline=0.5),
    at_mount("health that hangs up", "unreachable", "ping", hangs_up(), says=HUNG_UP),
    at_mount("is away", "unreachable", "ping", sends(respond(b"", 503)), details={"http_status": 503}),
    at_mount("describe that hangs", "timeout", "tools/list", hangs(), deadline=0.5),
    at_mount(
        "describe that is no description",
        "internal",
        "tools/list",
        answers(lambda message: json_of(result(message, {}))),
    ),
    *statuses(),
    call("status 500, a text", "internal", sends(respond(b"why", 500)), details={"http_status": 500, "body": "why"}),
    body("an empty body", lambda _: b"", "an empty body", details={"http_status": 200}),
    body("a blank body", lambda _: b" \r\n", "an empty body"),
    body("HTML", lambda _: b"\n <!doctype html><p>Welcome", "HTML, not JSON"),
    body("text", lambda _: b"Welcome", "invalid JSON: JSON is malformed"),
    body("truncated JSON", lambda message: text(message)[:-3], "invalid JSON: Input data was truncated"),
    body("NaN", lambda message: text(message).replace(b'"ab"', b"NaN"), "invalid JSON: JSON is malformed"),
    body("invalid UTF-8", lambda message: text(message).replace(b"ab", b"\xff"), "utf-8"),
    body("a list", lambda _: b"[1]", "expected a message of JSON-RPC 2.0"),
    body("an empty object", lambda _: b"{}", "expected a message of JSON-RPC 2.0"),
    body("no shape", lambda message: b'{"jsonrpc": "2.0", "id": %d}' % message["id"], "a result or an error"),
    body("another's reply", lambda message: text({"id": message["id"] + 100}), "has the id "),
    body(
        "a result that is none of a tool",
        lambda message: json.dumps(result(message, {})).encode(),
        "broke its contract",
    ),
    body("100,000 brackets", lambda _: b"[" * 100_000, "nested more than 200 levels", bound=1.0),
    body("50,000-deep JSON", lambda message: text(message).replace(b'"ab"', DEEP), "invalid JSON: ", bound=1.0),
    body("a coding", text, "the content-encoding 'br', which was not asked for", "content-encoding: br"),
    fine("chunked", chunked),
    fine("as an event", lambda message: events(event(of(message, {"x": "ab"})))),
    fine(
        "a body that ends with the connection",
        lambda message: HEAD + b"connection: close\r\n\r\n" + text(message),
        hang_up=True,
    ),
    fine("an early hint", lambda message: b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + GOOD(message)),
    fine("100 Continue, twice", lambda message: b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + GOOD(message)),
    fine("a cookie", lambda message: json_of(of(message, {"x": "ab"}), ["set-cookie: a=1"])),
    cut("hangs up at once", b"", HUNG_UP),
    cut("hangs up in the status line", HEAD[:-4], HUNG_UP),
    cut("hangs up before the body", HEAD + b"content-length: 9\r\n\r\n", HUNG_UP),
    cut("hangs up in the body", HEAD + b"content-length: 99\r\n\r\n{}", HUNG_UP),
    cut("hangs up in a chunk", CHUNKED + b"5\r\n{}", HUNG_UP),
    cut("hangs up in an event", STREAM + b"5\r\ndata:\r\n", HUNG_UP),
    cut("a chunk without a size", CHUNKED + b"zz\r\n", NOT_HTTP),
    cut("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", NOT_HTTP),
    cut("a head without end", HEAD + b"x: " + b"x" * 200_000, NOT_HTTP),
    call("events without a reply", "unreachable", sends(events(": nothing\n\n")), says=HUNG_UP),
    call("reset in mid-call", "unreachable", resets, says="ConnectionResetError"),
    late("hang", hangs()),
    late("hang after the head", hangs(HEAD + b"content-length: 9\r\n\r\n")),
    late("hang after an event", hangs(STREAM + b"b\r\n" + NOTE + b"\r\n")),
    late("slow headers", drips(HEAD, b"x-more: 1\r\n")),
    late("drip", drips(CHUNKED, b"1\r\n \r\n")),
    late("events without end", drips(STREAM, b"b\r\n" + NOTE + b"\r\n")),
    late_reply,
    second_reply,
    forgotten,
    cut_stream,
    much_progress,
    elsewhere("a redirect to another host", "http://127.0.0.2:1/mcp", 307),
    elsewhere("a redirect to another port", "http://127.0.0.1:1/mcp", 308),
    elsewhere("a redirect that asks for a GET", "/elsewhere", 303),
    elsewhere("redirects in a circle", "/mcp", 307),
    call("a body over the limit", "internal", sends(respond(b"x" * 1_000_001)), limits=LIMITS, says=TOO_LARGE),
    call("a body without end", "internal", floods, limits=LIMITS, says=TOO_LARGE, told=True, memory=10_000_000),
    tls("TLS of its own authority", "ok"),
    tls("TLS of an unknown authority", "unreachable", trusted=False, says="certificate verify failed"),
    tls("TLS for another name", "unreachable", "localhost", says="certificate verify failed"),
]
