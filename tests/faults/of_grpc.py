"""The faults of gRPC modules: each a real server on the loopback that misbehaves, its code, and how soon it is known.

Owns the cases. ``stage`` has the assertions that hold for each of them, beyond its row.
"""

from __future__ import annotations

import asyncio
import gzip
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from tests.faults.case import Case
from tests.grpc_transport.raw import HEADERS, TRAILERS, RawServer, frame
from tests.grpc_transport.servers import descriptor, message, ok

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.stage import Stage
    from tests.grpc_transport.raw import Call

    Fault = Callable[[Call], Awaitable[None]]

AT_ONCE = 0.1
"""Seconds within which a caller is to know of what ended a call."""

PROMPT = 0.05
"""Seconds after its deadline at which a call has ended."""

SIBLINGS = 2
MIB = 1 << 20


class Module:
    """A server that behaves, but for the op ``bad``. Calls by siblings are answered when the fault has been met."""

    def __init__(self, bad: Fault) -> None:
        self._bad = bad
        self._met = asyncio.Event()
        self.bad_call: Call | None = None

    async def __call__(self, call: Call) -> None:
        """Answer an invocation."""
        params = call.params
        if params["op"] == "bad":
            self.bad_call = call
            try:
                await self._bad(call)
            finally:
                self._met.set()
            return
        if "sibling" in params["args"]:
            await self._met.wait()
        await call.answer(ok(params["args"]))


def case(
    name: str, code: str, bad: Fault, *, bound: float = AT_ONCE, told: bool = False, siblings: int = SIBLINGS,
    limits: Any = None, **expected: Any,
) -> Case:  # fmt: skip
    """Make a case of one invocation; ``told``: its call is cancelled. Some faults end the siblings' connection, too."""

    async def play(stage: Stage) -> None:
        module = Module(bad)
        server = RawServer(module)
        await server.start()
        stage.later(server.stop)
        await stage.mount(descriptor(server.target, limits=limits or {}))
        await stage.bad(siblings=siblings)
        if told:
            assert module.bad_call
            async with asyncio.timeout(2):
                await module.bad_call.gone.wait()
        if not siblings:
            await _connected_again(stage)

    return Case(name=name, code=code, bound=bound, play=play, **expected)


async def _connected_again(stage: Stage) -> None:
    """Wait until there is a connection: after one that broke, gRPC takes a moment."""
    async with asyncio.timeout(10):
        while True:
            with suppress(Unreachable):
                await stage.call("good")
                return
            await asyncio.sleep(0.02)


def ends(code: str, status: int, text: str = "because") -> Case:
    """Make a case of a call that ends with a status."""
    status_name = next(each.name for each in grpc.StatusCode if each.value[0] == status)
    trailers = (("grpc-status", str(status)), ("grpc-message", text))
    return case(
        f"the status {status_name}",
        code,
        lambda call: call.answer(trailers=trailers),
        says=text,
        details={"grpc_status": status_name},
    )


def answers(name: str, *messages: bytes, says: str) -> Case:
    """Make a case of a response that is no reply."""
    return case(name, "internal", lambda call: call.answer(*messages), says=says)


async def hangs(call: Call) -> None:
    """Answer nothing."""
    await call.gone.wait()


async def begins(call: Call) -> None:
    """Answer with headers alone."""
    await call.headers()
    await call.gone.wait()


async def stops(call: Call) -> None:
    """Send a part of a message."""
    await call.headers()
    await call.data(frame(ok("x" * 1000))[:500])
    await call.gone.wait()


async def breaks(call: Call) -> None:
    """Close the connection."""
    call.peer.transport.abort()


async def breaks_amid(call: Call) -> None:
    """Close the connection in the middle of a message."""
    await call.headers()
    await call.data(frame(ok("x" * 1000))[:500])
    call.peer.transport.close()


async def babbles(call: Call) -> None:
    """Send what is no HTTP/2."""
    call.peer.transport.write(b"HTTP/1.1 500 Oops\r\n\r\n" * 100)
    await call.gone.wait()


async def packs(call: Call) -> None:
    """Send a small message that unpacks to a large one."""
    await call.headers((*HEADERS, ("grpc-encoding", "gzip")))
    await call.data(frame(gzip.compress(ok("x" * 2 * MIB), 1), packed=1))
    await call.headers(TRAILERS, end=True)


async def boasts(call: Call) -> None:
    """Announce a message of 4 GB, and send on."""
    await call.headers()
    await call.data(b"\0\xff\xff\xff\xff")
    while True:
        await call.data(b"x" * 10_000)


async def tells_much(call: Call) -> None:
    """Send a mass of metadata."""
    await call.headers((*HEADERS, *((f"x-{n}", "v" * 1000) for n in range(100))))
    await call.answer_rest(ok(1))


async def ends_long(call: Call) -> None:
    """Send one long trailer."""
    await call.headers()
    await call.data(frame(ok(1)))
    await call.plain_headers((b"grpc-status", b"0"), (b"x", b"v" * MIB))


async def says_much(call: Call) -> None:
    """Give a status with long words, of control characters."""
    await call.headers()
    await call.plain_headers((b"grpc-status", b"2"), (b"grpc-message", b"%00%0A%1b[31m" * 80_000))


async def mumbles(call: Call) -> None:
    """Give a status with words that are no UTF-8."""
    await call.headers()
    await call.plain_headers((b"grpc-status", b"2"), (b"grpc-message", b"a%FF\xff%00%0A"))


async def resets(call: Call) -> None:
    """Reset the stream, without an error."""
    call.peer.http2.reset_stream(call.stream, 0)
    await call.peer.flush()


async def refuses(call: Call) -> None:
    """Refuse the stream."""
    call.peer.http2.reset_stream(call.stream, 7)
    await call.peer.flush()


async def pings(call: Call) -> None:
    """Ping all the time, and answer."""
    for n in range(1000):
        call.peer.http2.ping(n.to_bytes(8, "big"))
        await call.peer.flush()
    await call.answer(ok("pinged"))


async def html(call: Call) -> None:
    """Answer as a proxy does."""
    await call.headers(((":status", "502"), ("content-type", "text/html")))
    await call.data(b"<html>", end=True)


async def twice(call: Call) -> None:
    """Send two replies to a call that has one."""
    await call.answer(ok(1), ok(2))


STATUSES = {
    1: "cancelled",
    2: "internal",
    3: "bad_request",
    4: "timeout",
    5: "unsupported_op",
    6: "internal",
    7: "forbidden",
    8: "unreachable",
    9: "bad_request",
    10: "internal",
    11: "bad_request",
    12: "unsupported_op",
    13: "internal",
    14: "unreachable",
    15: "internal",
    16: "forbidden",
}

CASES = [
    *(ends(code, status) for status, code in STATUSES.items()),
    answers("no message", says="expected field 1"),
    answers("an empty message", b"", says="expected field 1"),
    answers("bytes that are no protobuf", b"\xff" * 20, says="expected field 1"),
    answers("two fields", ok(1) + ok(2), says="expected field 1"),
    answers("bytes that are no JSON", b"\x0a\x03{x}", says="invalid message"),
    answers("JSON that is no message", b"\x0a\x02[]", says="invalid message"),
    answers("a chunk as reply", message(chunk=1), says="none of the three shapes"),
    answers("a reply without ok", message(result=1), says="none of the three shapes"),
    case("no answer", "timeout", hangs, bound=PROMPT, deadline=0.3, told=True),
    case("headers and no answer", "timeout", begins, bound=PROMPT, deadline=0.3, told=True),
    case("a part of an answer", "timeout", stops, bound=PROMPT, deadline=0.3, told=True),
    case("two replies to one call", "timeout", twice, bound=PROMPT, deadline=0.3),
    case("a page of a proxy", "unreachable", html, says="502"),
    case("a connection that breaks", "unreachable", breaks, siblings=0),
    case("a connection that breaks amid an answer", "unreachable", breaks_amid, siblings=0),
    case("no HTTP/2", "unreachable", babbles, siblings=0),
    case("a packed message", "internal", packs),
    case(
        "a message larger than the bound",
        "internal",
        lambda call: call.answer(ok("x" * 2 * MIB)),
        bound=0.2,
        says="larger than max",
        limits={"message_bytes": MIB},
    ),
    case("a message of 4 GB", "internal", boasts, says="larger than max"),
    case("a mass of metadata", "unreachable", tells_much),
    case("a trailer of 1 MB", "unreachable", ends_long, says="exceeds hard limit"),
    case("words of 1 MB", "unreachable", says_much, says="exceeds hard limit"),
    case("words that are no text", "internal", mumbles, says="UNKNOWN: a"),
    case("a reset", "internal", resets, says="error code 0"),
    case("a refusal of the stream", "unreachable", refuses, says="error code 7"),
    case("a mass of pings", "ok", pings, bound=1.0, result="pinged"),
]
