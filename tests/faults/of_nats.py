"""The faults of workers over NATS: each a real server and a worker that misbehaves, its code, and how soon it is known.

Owns the cases. ``stage`` has the assertions that hold for each of them, beyond its row.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from nats.aio.client import Client
from tests.faults.case import Case
from tests.nats_transport.servers import SUBJECT, Server, descriptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg
    from tests.faults.stage import Stage

    Fault = Callable[["Worker", Msg], Awaitable[None]]

AT_ONCE = 0.1
"""Seconds within which a caller is to know of what ended a call."""

PROMPT = 0.05
"""Seconds after its deadline at which a call has ended."""

SILENT = 3.5
"""Seconds within which a caller is to know that a worker has fallen silent."""

SIBLINGS = 2
MIB = 1 << 20
DESCRIPTION = {"name": "m", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}


def ok(result: Any) -> bytes:
    """Write a reply."""
    return json.dumps({"ok": True, "result": result}).encode()


class Worker:
    """A worker that behaves, but for the op ``bad``. Calls by siblings are answered when the fault has been met."""

    def __init__(self, bad: Fault, subject: str = SUBJECT) -> None:
        self._bad, self._subject = bad, subject
        self.msg: Msg | None = None
        self.parts: list[bytes] = []  # of a request, behind the first one
        self._met = asyncio.Event()
        self.client = Client()
        self.told = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self, server: Server, **credentials: Any) -> None:
        """Serve the subject."""
        await self.client.connect(server.address, **credentials)
        self.inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._subject}.*", "q", cb=self._take)
        await self.client.subscribe(f"{self.inbox}.*", cb=self._hear)
        await self.client._flush_pending(force_flush=True)  # flush alone writes its PING before what is pending
        await self.client.flush()

    async def stop(self) -> None:
        """End it."""
        for task in self.tasks:
            task.cancel()
        await self.client.close()

    async def say(self, msg: Msg, data: bytes = b"", word: str = "", *, control: str | None = None) -> None:
        """Send something for a request."""
        headers = {"Amplifier": word} if word else None
        control = f"{self.inbox}.bad" if control is None else control
        await self.client.publish(msg.reply, data, control, headers)

    async def _take(self, msg: Msg) -> None:
        task = asyncio.create_task(self._answer(msg))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        params = json.loads(msg.data) if not msg.headers else {"op": "bad"}
        if not msg.subject.endswith(".invoke"):
            await self.client.publish(msg.reply, ok(DESCRIPTION | {"status": "ok"}))
        elif params["op"] == "bad":
            await self._bad(self, msg)
            self._met.set()
        else:
            if "sibling" in params["args"]:
                await self._met.wait()
            await self.client.publish(msg.reply, ok(params["args"]))

    async def _hear(self, msg: Msg) -> None:
        if msg.headers and msg.headers.get("Amplifier") == "cancel":
            self.told.set()
        if msg.data:
            self.parts.append(msg.data)


def case(
    name: str, code: str, bad: Fault, *, bound: float = AT_ONCE, told: bool = False, limits: Any = None, **expected: Any
) -> Case:
    """Make a case of one invocation; ``told``: its worker hears that nobody waits."""

    async def play(stage: Stage) -> None:
        folder = stage.folder / "nats"
        folder.mkdir()
        server = Server(folder).start()

        async def stop() -> None:
            server.stop()

        stage.later(stop)
        worker = Worker(bad)
        await worker.start(server)
        stage.later(worker.stop)
        await stage.mount(descriptor(server, limits=limits or {}))
        await stage.bad(siblings=SIBLINGS)
        if told:
            async with asyncio.timeout(10):
                await worker.told.wait()

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def says(name: str, code: str, *messages: tuple[bytes, str], **expected: Any) -> Case:
    """Make a case of a worker that sends some messages: the payload, and the word of the header."""

    async def bad(worker: Worker, msg: Msg) -> None:
        for data, word in messages:
            await worker.say(msg, data, word)

    return case(name, code, bad, **expected)


async def hangs(worker: Worker, msg: Msg) -> None:
    """Say nothing."""


async def lives(worker: Worker, msg: Msg) -> None:
    """Say that it goes on, and answer nothing."""
    worker.tasks.add(asyncio.create_task(_live(worker, msg)))


async def _live(worker: Worker, msg: Msg) -> None:
    await worker.say(msg, b"", "taken")
    while True:
        await asyncio.sleep(0.5)
        await worker.say(msg, b"", "alive")


async def floods(worker: Worker, msg: Msg) -> None:
    """Say the same without end, and answer."""
    for _ in range(5000):
        await worker.say(msg, b"", "alive")
    await worker.say(msg, ok("said"))


async def intrudes(worker: Worker, msg: Msg) -> None:
    """Answer as another worker than the one that has the request, first."""
    await worker.say(msg, b"", "taken")
    await worker.say(msg, ok("wrong"), control=f"{worker.inbox}.other")
    await worker.say(msg, ok("right"))


async def doubles(worker: Worker, msg: Msg) -> None:
    """Answer twice, and send a chunk after the end."""
    await worker.say(msg, ok("once"))
    await worker.say(msg, ok("twice"))
    await worker.say(msg, b'{"chunk":1}')


async def heads(worker: Worker, msg: Msg) -> None:
    """Send half a megabyte of headers."""
    headers = {f"X-{n}": "x" for n in range(60_000)}
    await worker.client.publish(msg.reply, ok(1), "", headers)


async def misleads(worker: Worker, msg: Msg) -> None:
    """Name a subject of somebody else as its own."""
    await worker.say(msg, b"", "taken", control="payments.do")


async def packs(worker: Worker, msg: Msg) -> None:
    """Send chunks that nobody asked for, all at once."""
    for _ in range(40):
        await worker.say(msg, b'{"chunk":"%b"}' % (b"x" * MIB)[:200_000])
    await worker.say(msg, ok("done"))


FAILED = "failed"
CASES = [
    case("no answer", "unreachable", hangs, bound=SILENT, says="silent"),
    says("taken and no answer", "unreachable", (b"", "taken"), bound=SILENT, says="silent", told=True),
    case("alive and no answer", "timeout", lives, bound=PROMPT, deadline=0.5, told=True),
    says("bytes that are no JSON", "internal", (b"{x}", ""), says="invalid message", told=True),
    says("JSON that is no message", "internal", (b"[]", ""), says="invalid message"),
    says("no bytes", "internal", (b"", ""), says="invalid message"),
    says("a reply without ok", "internal", (b'{"result":1}', ""), says="none of the three shapes"),
    says("levels without end", "internal", (b"[" * 100_000, ""), says="invalid message"),
    says("a word that is none", "internal", (b"", "sing"), says="a word of the protocol"),
    says(
        "a part that does not come next", "internal", (b"{", "part 0 9"), (b"}", "part 8 9"), says="expected the part"
    ),
    says("a part that is too long", "internal", (b"{}{}", "part 0 2"), says="expected the part"),
    says("a part of nothing", "internal", (b"", "part 0 0"), says="expected the part"),
    says("a message amid parts", "internal", (b"{", "part 0 9"), (ok(1), ""), says="amid the parts"),
    says("parts of another size", "internal", (b"{", "part 0 9"), (b"}", "part 1 2"), says="expected the part"),
    says("a part, and no more", "unreachable", (b"{", "part 0 9"), bound=SILENT, says="silent"),
    says(
        "parts of a message larger than the bound",
        "internal",
        (b"{", f"part 0 {MIB + 1}"),
        says="limits.message_bytes",
        limits={"message_bytes": MIB},
    ),
    says(
        "a message larger than the bound",
        "internal",
        (ok("x" * 200_000), ""),
        says="limits.message_bytes",
        limits={"message_bytes": 100_000},
    ),
    says("a failure", "oom", (b'{"code":"oom","message":"too much","details":{"limit":1}}', FAILED), says="too much"),
    says("a failure with a code of its own", "internal", (b'{"code":"own","message":"m"}', FAILED), says="own"),
    says("a failure that is none", "internal", (b"[]", FAILED), says="expected an object with code"),
    says("a failure that is too long", "internal", (b'"%b"' % (b"x" * 70_000), FAILED), says="at most 65536"),
    case("a flood", "ok", floods, bound=5.0, result="said"),
    case("chunks that nobody reads", "ok", packs, bound=5.0, result="done", memory=100 * MIB),
    case("an answer of another worker", "ok", intrudes, bound=1.0, result="right"),
    case("two answers", "ok", doubles, bound=1.0, result="once"),
    case("a mass of headers", "internal", heads, bound=0.5, says="a word of the protocol"),
    case("a subject of somebody else", "internal", misleads, says="_INBOX."),
]
