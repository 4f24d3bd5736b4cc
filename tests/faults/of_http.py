"""The faults of HTTP modules: each a real server on the loopback that misbehaves, its code, and how soon it is known.

Owns the cases. ``stage`` has the assertions that hold for each of them, beyond its row.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import zlib
from typing import TYPE_CHECKING, Any

from tests.faults.case import Case
from tests.faults.stage import MODULE
from tests.http.raw import DESCRIPTION, as_module, certified, describe_remote, echo, respond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.faults.stage import Stage
    from tests.http.raw import Request

    from amplifier_core import ModuleDescriptor

    Fault = Callable[[Request], Awaitable[None]]
    Play = Callable[[Stage], Awaitable[None]]

AT_ONCE = 0.1
"""Seconds within which a caller is to know of what ended a call."""

PROMPT = 0.05
"""Seconds after its deadline at which a call has ended."""

SIBLINGS = 2

HUNG_UP = "the server closed the connection before the end of its answer"
NOT_HTTP = "the answer is not HTTP/1.1: "


def remote(url: str, **fields: Any) -> ModuleDescriptor:
    """Describe the module of a case."""
    return describe_remote(url, name="m", **fields)


class Module:
    """A server that behaves, but for the op ``bad``. Calls by siblings are answered when the fault has been met."""

    def __init__(self, bad: Fault) -> None:
        self._bad = bad
        self._met = asyncio.Event()
        self.answer = as_module(self._invoke, {**DESCRIPTION, "name": "m"})

    async def _invoke(self, request: Request) -> None:
        if request.params["op"] == "bad":
            try:
                await self._bad(request)
            finally:
                self._met.set()
            return
        if "sibling" in request.params["args"]:
            await self._met.wait()
        await echo(request)


async def behave(request: Request) -> None:
    """Be a module without a fault."""
    await as_module(echo, {**DESCRIPTION, "name": "m"})(request)


def call(
    name: str, code: str, bad: Fault, *, bound: float = AT_ONCE, limits: Any = None, told: bool = False, **expected: Any
) -> Case:
    """Make a case of one invocation, with siblings in flight on the same module; ``told``: its connection ends."""

    async def play(stage: Stage) -> None:
        server = await stage.serve(Module(bad).answer)
        await stage.mount(remote(server.url, limits=limits or {}))
        await stage.bad(siblings=SIBLINGS)
        (request, *_) = (each for each in server.requests if each.params.get("op") == "bad")
        if told:
            async with asyncio.timeout(2):
                await request.ended.wait()

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def fine(name: str, bad: Fault, **expected: Any) -> Case:
    """Make a case of an invocation that may not fail."""
    return call(name, "ok", bad, result="ab", **expected)


def case(name: str, code: str, bound: float = AT_ONCE, **expected: Any) -> Callable[[Play], Case]:
    """Make a case of a function that plays it."""
    return lambda play: Case(name=name, code=code, bound=bound, play=play, **expected)


def late(name: str, bad: Fault) -> Case:
    """Make a case of an answer that is not there at the deadline; the server is told of it."""
    return call(name, "timeout", bad, bound=PROMPT, deadline=0.2, told=True)


def body(name: str, content: bytes, says: str, *headers: str, **expected: Any) -> Case:
    """Make a case of a body that is no reply, under a status of success."""
    bad = sends(respond(content, headers=headers))
    return call(name, "internal", bad, says=says, **{"details": {"http_status": 200}, **expected})


def cut(name: str, data: bytes, says: str) -> Case:
    """Make a case of an answer that is no whole HTTP/1.1 before the server hangs up."""
    return call(name, "unreachable", hangs_up(data), says=f"RemoteProtocolError: {says}", told=True)


def elsewhere(name: str, location: str, status: int) -> Case:
    """Make a case of a redirect that is not followed."""
    return call(name, "internal", redirects(location, status), says="is not followed", details={"http_status": status})


# What a server sends.


def sends(data: bytes) -> Fault:
    """Answer with bytes as they are, and keep the connection."""

    async def answer(request: Request) -> None:
        await request.send(data)

    return answer


def hangs_up(data: bytes = b"") -> Fault:
    """Answer with bytes as they are, and close the connection."""

    async def answer(request: Request) -> None:
        await request.send(data)
        request.writer.close()

    return answer


def hangs(data: bytes = b"") -> Fault:
    """Answer with bytes as they are, and then with none."""

    async def answer(request: Request) -> None:
        await request.send(data)
        await request.gone()

    return answer


def drips(first: bytes, again: bytes) -> Fault:
    """Send ever more; only the deadline ends it, as the pauses are what the fault is made of."""

    async def answer(request: Request) -> None:
        await request.send(first)
        for _ in range(400):
            await request.send(again)
            await asyncio.sleep(0.005)
        await request.gone()

    return answer


def redirects(location: str, status: int = 307) -> Fault:
    """Send the caller elsewhere; ``{}`` is where it is."""

    async def answer(request: Request) -> None:
        await request.send(respond(b"", status, [f"location: {location.format(request.headers['host'])}"]))

    return answer


async def moved(request: Request) -> None:
    """Answer at another path of the same origin."""
    if request.path == "/invoke":
        await redirects("http://{}/v2/invoke")(request)
    else:
        await request.send(respond(GOOD))


async def resets(request: Request) -> None:
    """Close with a reset."""
    request.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.reset()


async def floods(request: Request) -> None:
    """Send a body without end."""
    await request.send(CHUNKED)
    while True:
        await request.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
NDJSON = HEAD + b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b'd\r\n{"chunk": 1}\n\r\n'
GOOD = b'{"ok": true, "result": "ab"}'
GZIP = "content-encoding: gzip"


# Statuses (section 4).

CODES = {
    "bad_request": (400, 413, 422),
    "forbidden": (401, 403),
    "unsupported_op": (404, 405, 501),
    "timeout": (408, 504),
    "unreachable": (429, 502, 503),
    "internal": (200, 204, 402, 409, 418, 500, 505),
}
NO_KEY = {"ok": False, "error": {"code": "forbidden", "message": "no key"}}
OWN = {"ok": False, "error": {"code": "own_code", "message": "of the module", "details": {"word": "x"}}}


def statuses() -> list[Case]:
    """Make the cases of every status, with and without a body of the protocol."""
    found = []
    for code, numbers in CODES.items():
        for status in numbers:
            empty = sends(respond(b"", status))
            found.append(call(f"status {status}, no body", code, empty, details={"http_status": status}))
            if status != 204:  # which has none
                own = sends(respond(OWN, status))
                found.append(call(f"status {status}, an error of the module", "own_code", own, details={"word": "x"}))
    return found


# Cases that take more than one answer.


@case("connection refused", "unreachable", says="ConnectionRefusedError")
async def refused(stage: Stage) -> None:
    server = await stage.serve(behave)
    await stage.mount(remote(server.url))
    await server.stop()
    await stage.bad()
    await stage.serve(behave, port=server.port)


@case("connection refused at the mount", "unreachable", says="ConnectionRefusedError")
async def refused_mount(stage: Stage) -> None:
    server = await stage.serve(behave)
    await server.stop()
    await stage.provoke(stage.mount(remote(server.url)))
    await good(stage)


@case("a name that does not resolve", "unreachable", 1.0, says="gaierror")
async def no_such_host(stage: Stage) -> None:
    await stage.provoke(stage.mount(remote("http://no-such-host.invalid:8080")))
    await good(stage)


async def good(stage: Stage, **fields: Any) -> None:
    """Mount a module without a fault."""
    await stage.mount(remote((await stage.serve(behave)).url, **fields))


def at_mount(name: str, code: str, answers: Mapping[str, Fault], **expected: Any) -> Case:
    """Make a case of a module that fails its mount, by the path that it answers wrongly."""

    async def answer(request: Request) -> None:
        await answers.get(request.path, behave)(request)

    async def play(stage: Stage) -> None:
        server = await stage.serve(answer)
        await stage.provoke(stage.mount(remote(server.url), expected.get("deadline") or 60))
        assert await stage.session.mounts() == []
        assert server.paths[-1] in answers, f"it went on to {server.paths}"
        async with asyncio.timeout(2):
            for request in server.requests:
                await request.ended.wait()
        await good(stage)

    return Case(name=name, code=code, bound=PROMPT if "deadline" in expected else AT_ONCE, play=play, **expected)


def describes(**lie: Any) -> dict[str, Fault]:
    """Describe a module otherwise than its descriptor."""
    return {"/describe": sends(respond({**DESCRIPTION, "name": "m", **lie}))}


@case("keep-alive closed while idle", "ok", result={})
async def closed_idle(stage: Stage) -> None:
    async def answer(request: Request) -> None:
        await behave(request)
        request.writer.close()

    server = await stage.serve(answer)
    await stage.mount(remote(server.url))
    await stage.call("good")
    await server.requests[-1].ended.wait()
    await stage.bad()


@case("keep-alive closed by a restart", "ok", result={})
async def restarted(stage: Stage) -> None:
    server = await stage.serve(behave)
    await stage.mount(remote(server.url))
    await server.stop()
    await stage.serve(behave, port=server.port)
    await stage.bad()


@case("late reply", "timeout", PROMPT, deadline=0.2)
async def late_reply(stage: Stage) -> None:
    """Answer when the caller has gone, and see that no other call gets it."""

    async def bad(request: Request) -> None:
        await request.gone()
        await request.send(respond({"ok": True, "result": "late"}))

    server = await stage.serve(Module(bad).answer)
    await stage.mount(remote(server.url))
    await stage.bad(siblings=SIBLINGS)


@case("stops reading while 16 MB are written", "timeout", PROMPT, deadline=0.3)
async def unread(stage: Stage) -> None:
    async def answer(request: Request) -> None:
        await behave(request)
        if request.path == "/describe" and len(server.requests) == 2:
            request.reader._transport.pause_reading()
            await asyncio.Event().wait()

    server = await stage.serve(answer)
    await stage.mount(remote(server.url))
    await stage.provoke(stage.call("good", {"text": "x" * 16_000_000}, timeout=0.3))


@case("NDJSON cut before its end", "unreachable", says=HUNG_UP)
async def cut_stream(stage: Stage) -> None:
    """See that the chunks that came are not lost."""
    server = await stage.serve(Module(hangs_up(NDJSON + CHUNK * 2)).answer)
    await stage.mount(remote(server.url))
    stream = stage.session.stream(MODULE, "bad", {})
    seen = []

    async def read() -> None:
        async for chunk in stream:
            seen.append(chunk)

    await stage.provoke(stage.note(read()))
    assert seen == [1, 1], seen


@case("20,000 chunks at once", "ok", 2.0, result=list(range(20_000)))
async def many_chunks(stage: Stage) -> None:
    lines = [json.dumps({"chunk": n}) for n in range(20_000)] + ['{"ok": true, "result": "whole"}']
    body = respond("\n".join(lines).encode(), 200, ["content-type: application/x-ndjson"])
    server = await stage.serve(Module(sends(body)).answer)
    await stage.mount(remote(server.url))
    stream = stage.session.stream(MODULE, "bad", {})

    async def read() -> list[Any]:
        return [chunk async for chunk in stream]

    await stage.provoke(read())
    assert await stage.note(stream.result()) == "whole"


def tls(name: str, code: str, host: str = "127.0.0.1", *, trusted: bool = True, **expected: Any) -> Case:
    """Make a case of a real TLS server, with a certificate for 127.0.0.1 of an authority of its own."""

    async def play(stage: Stage) -> None:
        ca, context = certified(stage.folder)
        server = await stage.serve(behave, tls=context)
        transport = {"ca": str(ca)} if trusted else {}
        mounting = stage.mount(remote(f"https://{host}:{server.port}", transport=transport))
        await stage.provoke(mounting)
        if code != "ok":
            await stage.mount(remote(server.url, transport={"ca": str(ca)}))

    return Case(name=name, code=code, bound=0.5, play=play, **expected)


@case("TLS to a server that speaks none", "unreachable", says="SSLError")
async def no_tls(stage: Stage) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(respond(b"", 400))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await stage.provoke(stage.mount(remote(f"https://127.0.0.1:{port}")))
    await good(stage)


@case("a TLS handshake that hangs", "timeout", PROMPT, deadline=0.2)
async def hanging_tls(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        await stage.provoke(stage.mount(remote(url), timeout=0.2))
    await good(stage)


DEEP = b'{"ok": true, "result": %s}' % (b"[" * 50_000 + b"]" * 50_000)
LIMITS = {"message_bytes": 1_000_000}
TOO_LARGE = "answered with more than 1000000 bytes (limits.message_bytes)"
BOMB = sends(respond(gzip.compress(b" " * 100_000_000, 1), headers=[GZIP]))

CASES = [
    refused,
    refused_mount,
    no_such_host,
    at_mount("health that hangs", "timeout", {"/health": hangs()}, deadline=0.2),
    at_mount("health that hangs up", "unreachable", {"/health": hangs_up()}, says=HUNG_UP),
    at_mount("is not well", "unreachable", {"/health": sends(respond({"status": "starting"}))}, says="starting"),
    at_mount("is away", "unreachable", {"/health": sends(respond(b"", 503))}, details={"http_status": 503}),
    at_mount("is a web page", "internal", {"/health": sends(respond(b"<html>"))}, says="HTML, not JSON"),
    at_mount("refuses us", "forbidden", {"/health": sends(respond(NO_KEY, 500))}, says="no key"),
    at_mount("describe that hangs", "timeout", {"/describe": hangs()}, deadline=0.2),
    at_mount("describe that lies about its name", "internal", describes(name="n"), says="name"),
    at_mount("describe that lies about its kind", "internal", describes(kind="hook"), says="kind"),
    at_mount("describe that claims more", "forbidden", describes(capabilities=["sys:emit"]), says="sys:emit"),
    *statuses(),
    call("status 500, a text", "internal", sends(respond(b"why", 500)), details={"http_status": 500, "body": "why"}),
    body("an empty body", b"", "an empty body"),
    body("a blank body", b" \r\n", "an empty body"),
    body("HTML", b"\n <!doctype html><p>Welcome", "HTML, not JSON"),
    body("text", b"Welcome", "invalid JSON: JSON is malformed", details={"body": "Welcome"}),
    body("truncated JSON", GOOD[:-3], "invalid JSON: Input data was truncated"),
    body("NaN", b'{"ok": true, "result": NaN}', "invalid JSON: JSON is malformed"),
    body("invalid UTF-8", b'{"ok": true, "result": "\xff"}', "invalid JSON: "),
    body("a list", b"[1]", "invalid JSON: Expected `object`, got `array`"),
    body("an empty object", b"{}", "none of the three shapes of section 2"),
    body("no shape", b'{"words": 2}', "none of the three shapes of section 2"),
    body("a chunk alone", b'{"chunk": 2}', "none of the three shapes of section 2"),
    body("a reply without its result", b'{"ok": true}', "none of the three shapes of section 2"),
    body("ok that is text", b'{"ok": "yes", "result": 1}', "Expected `bool | null`, got `str` - at `$.ok`"),
    body("100,000 brackets", b"[" * 100_000, "invalid JSON: ", bound=1.0),
    body("50,000-deep JSON", DEEP, "invalid JSON: nested more than 200 levels deep", bound=1.0),
    body("gzip that is none", GOOD, "answered with gzip that cannot be unpacked: Error -3", GZIP),
    body("deflate for gzip", zlib.compress(GOOD), "answered with gzip that cannot be unpacked: Error -3", GZIP),
    body("gzip without its end", gzip.compress(GOOD)[:-4], "answered with gzip without its end", GZIP),
    body("an empty gzip", b"", "answered with gzip without its end", GZIP),
    body("more after its gzip", gzip.compress(GOOD) + b"more", "gzip that cannot be unpacked", GZIP),
    body("another coding", GOOD, "the content-encoding 'br', which was not asked for", "content-encoding: br"),
    fine("chunked", sends(CHUNKED + b'8;x=1\r\n{"ok": t\r\n14\r\nrue, "result": "ab"}\r\n0\r\ntrailer: x\r\n\r\n')),
    fine("gzip", sends(respond(gzip.compress(GOOD), headers=[GZIP]))),
    fine("gzip by another name", sends(respond(gzip.compress(GOOD), 500, ["Content-Encoding: X-GZIP"]))),
    fine("HTTP/1.0", hangs_up(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)),
    fine("a body that ends with the connection", hangs_up(HEAD + b"connection: close\r\n\r\n" + GOOD)),
    fine("an early hint", sends(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + respond(GOOD))),
    fine("100 Continue, twice", sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + respond(GOOD))),
    fine("a status without a reason", sends(b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD))),
    fine("a cookie", sends(respond(GOOD, headers=["set-cookie: a=1", "content-encoding: identity"]))),
    cut("hangs up at once", b"", HUNG_UP),
    cut("hangs up in the status line", HEAD[:-4], HUNG_UP),
    cut("hangs up in the head", HEAD, HUNG_UP),
    cut("hangs up before the body", HEAD + b"content-length: 9\r\n\r\n", HUNG_UP),
    cut("hangs up in the body", HEAD + b"content-length: 99\r\n\r\n" + GOOD, HUNG_UP),
    cut("hangs up in a chunk", CHUNKED + b"5\r\n{}", HUNG_UP),
    cut("a chunk without a size", CHUNKED + b"zz\r\n", NOT_HTTP),
    cut("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", NOT_HTTP),
    cut("HTTP/2", b"HTTP/2 200\r\n\r\n", NOT_HTTP),
    cut("an upgrade", b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", f"{NOT_HTTP}it switches to another protocol"),
    cut("a length beside chunks", CHUNKED[:-2] + b"content-length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n", NOT_HTTP),
    cut("a header that goes on", HEAD + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n", NOT_HTTP),
    cut("two lengths", HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab", NOT_HTTP),
    cut("a head without end", HEAD + b"x: " + b"x" * 200_000, NOT_HTTP),
    cut("a trailer without end", CHUNKED + b"1\r\n{\r\n0\r\nx: " + b"x" * 200_000, NOT_HTTP),
    cut("early responses without a pause", b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000, NOT_HTTP),
    call("reset in mid-call", "unreachable", resets, says="ConnectionResetError"),
    closed_idle,
    restarted,
    late("hang", hangs()),
    late("hang after the head", hangs(HEAD + b"content-length: 9\r\n\r\n")),
    late("slow headers", drips(HEAD, b"x-more: 1\r\n")),
    late("drip", drips(CHUNKED, b"1\r\n \r\n")),
    late("early responses without end", drips(b"", b"HTTP/1.1 102 Processing\r\n\r\n")),
    late("chunks without end", drips(NDJSON, CHUNK)),
    late_reply,
    unread,
    cut_stream,
    call("NDJSON cut in a line", "internal", sends(NDJSON + CHUNK + b'3\r\n{"o\r\n0\r\n\r\n'), says="truncated"),
    call(
        "NDJSON without a final reply",
        "internal",
        sends(NDJSON + CHUNK + b"0\r\n\r\n"),
        says="ended without a final reply",
    ),
    many_chunks,
    fine("a redirect within the origin", moved),
    elsewhere("a redirect to another host", "http://127.0.0.2:1/invoke", 307),
    elsewhere("a redirect to another port", "http://127.0.0.1:1/invoke", 307),
    elsewhere("a redirect to https", "https://{}/invoke", 307),
    elsewhere("a redirect without a scheme", "//example.test/invoke", 308),
    elsewhere("a redirect to no address", "http://[::1/invoke", 302),
    elsewhere("a redirect to no port", "http://host:none/invoke", 302),
    elsewhere("a redirect that asks for a GET", "/elsewhere", 303),
    elsewhere("several choices", "/elsewhere", 300),
    elsewhere("redirects in a circle", "/invoke", 307),
    call("a body over the limit", "internal", sends(respond(b"x" * 1_000_001)), limits=LIMITS, says=TOO_LARGE),
    call("a body without end", "internal", floods, limits=LIMITS, says=TOO_LARGE, told=True, memory=10_000_000),
    call("a gzip bomb", "internal", BOMB, limits=LIMITS, says=TOO_LARGE, memory=10_000_000),
    tls("TLS of its own authority", "ok"),
    tls("TLS of an unknown authority", "unreachable", trusted=False, says="certificate verify failed"),
    tls("TLS for another name", "unreachable", "localhost", says="certificate verify failed"),
    no_tls,
    hanging_tls,
]
