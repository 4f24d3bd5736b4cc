"""The check of a transport: its connection to one module, as the kernel uses it.

Owns the rules. The module is ``ProbeModule``, or one with the same operations; the author of the transport starts it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from amplifier_core._modules.grace import bounded
from amplifier_core._protocol.errors import Internal, KernelError, Unreachable, one_line, printable, short
from amplifier_core._protocol.json import decode_checked, encode_checked
from amplifier_core._protocol.message import Message
from amplifier_core.hookspecs import Chunks, Host

from ._check import Check
from ._start import open_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Connection

_AT_ONCE = 16
_GRACE = 1.0  # seconds in which a cancelled request ends
_ON_ITS_WAY = 0.3  # seconds after which a request has left
_LARGE = 1 << 20  # bytes of a message, if `limits.message_bytes` lets it pass
_CHUNKS, _KIB = 200, 64  # together they are more than a reader's buffer
_VALUES = {"text": 'ä "\u2028\n', "numbers": [0, -1, 2**53 + 1, 1.5, 1e300], "more": [None, True, {}, {"": []}]}
_EVENTS = ("module:start", "module:exit", "module:noise", "module:changed", "events:dropped")
_STARTS = "it starts, and answers health and describe"


async def check_transport(
    descriptor: ModuleDescriptor,
    *,
    secrets: Collection[str] = (),
    without: Collection[str] = (),
    seconds: float = 10.0,
) -> list[Check]:
    """Check a transport with a ``ProbeModule`` behind it, which its author serves and to which ``descriptor`` leads.

    A local module runs as an ordinary process, without isolation. Set ``limits.message_bytes`` of the descriptor to a
    few MiB: some messages are larger. ``secrets`` are values of the descriptor that nothing may show. ``without`` names
    rules to leave out, as for a protocol that has no word for chunks.

    Each rule is one finding, with the ``problem`` of a flaw. Whatever the transport does, this raises nothing, and each
    rule ends within ``seconds``.
    """
    probe = _Probe(descriptor, secrets)
    found: list[Check] = []
    for name, section, look in _RULES:
        if name not in without:
            found.append(Check(name, section, printable(await _problem(look, probe, seconds))))
            if name == _STARTS and found[-1].problem:
                break
    await _problem(_Probe.leave, probe, seconds)
    return found


async def _problem(look: Callable[[_Probe], Awaitable[str]], probe: _Probe, seconds: float) -> str:
    try:
        return await asyncio.wait_for(look(probe), seconds)
    except TimeoutError:
        return f"no end within {seconds:g} s"
    except Exception as error:  # noqa: BLE001 - foreign code
        return f"it raised {one_line(error)}"


class _Probe:
    """One connection, and what it has reported and raised."""

    def __init__(self, descriptor: ModuleDescriptor, secrets: Collection[str]) -> None:
        self._descriptor = descriptor
        self._secrets = secrets
        self._host = Host()
        self._began = asyncio.all_tasks()
        self._connection: Connection
        self._events: list[str] = []
        self._shown: list[str] = []  # what people may see of it

    async def close_unstarted(self) -> str:
        await bounded(self._open().close(), "close")
        return ""

    async def start(self) -> str:
        self._connection = self._open()
        await bounded(self._connection.start(self._descriptor.capabilities, None), "start")
        for method, name in (("health", "status"), ("describe", "name")):
            reply = await self._ask(method)
            if reply.ok is not True or not isinstance(reply.result, dict) or name not in reply.result:
                return f"{method} gave {short(reply, 200)}, expected ok with a result"
        return ""

    async def pass_values(self) -> str:
        result = (await self._invoke("echo", _VALUES)).result
        return "" if encode_checked(result) == encode_checked(_VALUES) else f"they came back as {short(result, 200)}"

    async def pass_large(self) -> str:
        size = min(_LARGE, self._descriptor.message_bytes // 2)
        result = (await self._invoke("echo", {"text": "x" * size})).result
        return "" if result == {"text": "x" * size} else f"{size} bytes came back as {short(result, 200)}"

    async def refuse_too_large(self) -> str:
        """A reply beyond the limit is the module's fault; the next request has an answer."""
        outcome = await self._outcome("large", {"size": self._descriptor.message_bytes + 1000})
        if not isinstance(outcome, Internal):
            return f"it gave {short(outcome, 200)}, expected Internal"
        return await self._answers()

    async def run_at_once(self) -> str:
        replies = await asyncio.gather(*(self._invoke("meet", {"of": _AT_ONCE, "n": n}) for n in range(_AT_ONCE)))
        numbers = [reply.result["n"] for reply in replies]
        return "" if numbers == list(range(_AT_ONCE)) else f"replies went to other requests: {numbers}"

    async def pass_errors(self) -> str:
        details = {"why": [1, {"a": None}]}
        for code in ("bad_request", "of.its-own"):
            error = (await self._invoke("fail", {"code": code, "details": details})).error
            if not error or (error.code, error.message, error.details) != (code, "as asked", details):
                return f"{code} came as {short(error, 200)}"
        return ""

    async def pass_pending(self) -> str:
        state = {"n": [1, None, "ä"]}
        pending = (await self._invoke("pend", {"state": state})).pending
        came = pending and (pending.syscalls[0].name, decode_checked(bytes(pending.state)))
        return "" if came == ("context.get", state) else f"it came as {short(pending, 200)}"

    async def pass_events(self) -> str:
        events = (await self._invoke("emit", {"n": 1})).events
        return "" if events == [{"event": "probe:said", "data": {"n": 1}}] else f"they came as {short(events, 200)}"

    async def fail_broken(self) -> str:
        outcome = await self._outcome("broken")
        if not isinstance(outcome, Internal):
            return f"it gave {short(outcome, 200)}, expected Internal"
        return await self._answers()

    async def pass_chunks(self) -> str:
        chunks = Chunks()
        reply = await self._invoke("chunks", {"count": 100, "kib": 0}, chunks)
        chunks.end()
        came = [chunks.take()["n"] for _ in range(100) if chunks.ready]
        if came != list(range(100)) or chunks.ready:
            return f"not each one once and in order, before the reply: {short(came, 200)}"
        unread = await self._invoke("chunks", {"count": 3, "kib": 0})
        return "" if reply.result == {"count": 100} and unread.chunk is UNSET else "the reply is another one"

    async def hold_back(self) -> str:
        """While the reader is behind, and no other request is in flight, the module waits."""
        chunks = Chunks()
        task = asyncio.ensure_future(self._invoke("chunks", {"count": _CHUNKS, "kib": _KIB}, chunks))
        task.add_done_callback(lambda _: chunks.end())
        await asyncio.wait((task,), timeout=_GRACE)
        came = 0
        try:
            while True:
                await chunks.get()
                came += 1
        except StopAsyncIteration:
            await task
        if chunks.dropped:
            return f"{chunks.dropped} of {_CHUNKS} chunks were dropped: pause while put gives False, until when_room"
        return "" if came == _CHUNKS else f"{came} chunks of {_CHUNKS} came"

    async def cancel(self) -> str:
        """A cancelled request ends, its module is told, and what is beside it goes on."""
        before = (await self._invoke("cancelled")).result["count"]
        beside = asyncio.ensure_future(self._invoke("meet", {"of": 2}))
        for op in ("wait", "finish"):
            if problem := await self._give_up(op):
                beside.cancel()
                return f"{op}: {problem}"
        await self._invoke("meet", {"of": 2})
        await beside
        loop = asyncio.get_running_loop()
        until, count = loop.time() + 3 * _GRACE, before
        while count != before + 2:
            count = (await self._invoke("cancelled")).result["count"]
            if loop.time() > until:
                return f"of 2 cancelled requests the module heard of {count - before}"
            await asyncio.sleep(_GRACE / 20)
        return "" if (await self._invoke("echo", {})).result == {} else "a late reply went to another request"

    async def _give_up(self, op: str) -> str:
        task = asyncio.ensure_future(self._invoke(op))
        await asyncio.wait((task,), timeout=_ON_ITS_WAY)  # it is on its way
        task.cancel("given up")
        await asyncio.wait((task,), timeout=_GRACE)
        if not task.done():
            return f"it had not ended {_GRACE:g} s after its cancellation"
        if not task.cancelled():
            return f"a cancelled request ended with {short(task.exception() or task.result(), 200)}"
        try:
            task.result()
        except asyncio.CancelledError as error:
            return (
                ""
                if error.args == ("given up",)
                else "the CancelledError has another message: anyio knows its own by it"
            )
        return ""  # pragma: no cover

    async def end_and_begin(self) -> str:
        """What is in flight at an end fails, each with an error of its own; two requests make one new start.

        Where each request has a connection of its own, those beside go on: then they meet a third one. A connection to
        a module that runs elsewhere may take a second to be there again.
        """
        beside = [asyncio.ensure_future(self._outcome("meet", {"of": 3})) for _ in range(2)]
        await asyncio.wait(beside, timeout=_ON_ITS_WAY)
        ended = [await self._outcome("die")]
        await asyncio.wait(beside, timeout=_GRACE)
        if not all(each.done() for each in beside):
            third = asyncio.ensure_future(self._outcome("meet", {"of": 3}))
            await asyncio.wait((*beside, third), timeout=3 * _GRACE)
            lost = [each for each in (*beside, third) if not each.done()]
            for each in lost:
                each.cancel()
            if lost:
                return "what was in flight has neither an answer nor an error"
        ended += [each.result() for each in beside if isinstance(each.result(), Exception)]
        other = next((each for each in ended if not isinstance(each, Unreachable)), None)
        if other is not None:
            return f"it gave {short(other, 200)}, expected Unreachable"
        if len(set(map(id, ended))) < len(ended):
            return "two requests have the same error object"
        starts = self._events.count("module:start")
        problems = await asyncio.gather(self._answers_again(), self._answers_again())
        if (starts := self._events.count("module:start") - starts) > 1:
            return f"two requests at once started it {starts} times"
        return problems[0] or problems[1]

    async def keep_secrets(self) -> str:
        seen = [repr(self._connection), str(self._connection.clues()), *self._shown]
        shown = next((text for text in seen for secret in self._secrets if secret in text), "")
        return f"a secret is shown: {shown[:200]}" if shown else ""

    async def report(self) -> str:
        unknown = [event for event in self._events if event not in _EVENTS]
        return f"it reports {unknown[0]!r}, which is none of {', '.join(_EVENTS)}" if unknown else ""

    async def close(self) -> str:
        """What is in flight fails; a second close does nothing; nothing runs on, and no request is sent any more."""
        beside = asyncio.ensure_future(self._outcome("wait"))
        await asyncio.wait((beside,), timeout=_ON_ITS_WAY)
        for _ in range(2):
            await bounded(self._connection.close(), "close")
        if not isinstance(await beside, Unreachable):
            return f"a request in flight ended with {short(beside.result(), 200)}, expected Unreachable"
        if not isinstance(outcome := await self._outcome("echo"), Unreachable):
            return f"a request after it gave {short(outcome, 200)}, expected Unreachable"
        await self._host.close()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._began - {asyncio.current_task()}
        return f"a task runs on: {short(left.pop(), 200)}" if left else ""

    async def leave(self) -> str:
        """End what a flaw may have left."""
        await bounded(self._connection.close(), "close")
        await self._host.close()
        return ""

    # What they use.

    def _open(self) -> Connection:
        return open_connection(self._descriptor, self._host, self._notify)

    def _notify(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        self._events.append(event)
        self._shown += [str(data), str(error and error.body())]

    async def _ask(self, method: str, params: object = None, chunks: Chunks | None = None) -> Message:
        try:
            reply = await bounded(
                self._connection.request(method, encode_checked(params or {}), chunks), "the transport"
            )
        except Exception as error:
            self._shown.append(f"{error!r} {getattr(error, 'details', '')}")
            raise
        if not isinstance(reply, Message):
            raise Internal(f"request gave {type(reply).__name__}, expected a Message")
        return reply

    def _invoke(self, op: str, args: object = None, chunks: Chunks | None = None) -> Awaitable[Message]:
        return self._ask("invoke", {"op": op, "args": args or {}}, chunks)

    async def _outcome(self, op: str, args: object = None) -> object:
        """Give the reply, or the error."""
        try:
            return await self._invoke(op, args)
        except Exception as error:  # noqa: BLE001 - foreign code
            return error

    async def _answers(self) -> str:
        outcome = await self._outcome("echo", {"n": 1})
        return "" if getattr(outcome, "result", None) == {"n": 1} else f"the next request gave {short(outcome, 200)}"

    async def _answers_again(self) -> str:
        """Ask once, and a second long if what is elsewhere has to be found again."""
        problem = await self._answers()
        for _ in range(0 if self._connection.local else 20):
            if not problem:
                break
            await asyncio.sleep(_GRACE / 20)
            problem = await self._answers()
        return problem


_RULES = (
    ("one that was not started can be closed", "6", _Probe.close_unstarted),
    (_STARTS, "2", _Probe.start),
    ("arguments and results pass unchanged", "2", _Probe.pass_values),
    ("large messages pass", "1", _Probe.pass_large),
    ("a message beyond limits.message_bytes is internal", "9", _Probe.refuse_too_large),
    (f"{_AT_ONCE} requests run at once", "3", _Probe.run_at_once),
    ("errors pass with code, message and details", "5", _Probe.pass_errors),
    ("pending passes, with its state", "2", _Probe.pass_pending),
    ("events of a reply pass", "2", _Probe.pass_events),
    ("a reply that is no JSON is internal", "5", _Probe.fail_broken),
    ("chunks come in order, before the reply", "2", _Probe.pass_chunks),
    ("a slow reader of chunks holds the module back", "2", _Probe.hold_back),
    ("a cancelled request ends, alone, and its module is told", "3", _Probe.cancel),
    ("an end fails what is in flight, and the next request starts anew", "5", _Probe.end_and_begin),
    ("no secret is shown", "6", _Probe.keep_secrets),
    ("only events of transports are reported", "7", _Probe.report),
    ("close ends everything, and may be called twice", "5", _Probe.close),
)
