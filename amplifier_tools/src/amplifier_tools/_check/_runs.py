"""The runs of a module's operations: those that its author gave an example of, and one that no module has.

Owns how often an operation runs, and what its outcome is held against. It makes no system call for a module.
"""

from __future__ import annotations

import asyncio
import secrets
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_tools._text import line_of

from ._misfit import spoil
from ._schemas import own_misfit
from ._wires import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.testing import Example

    from ._judge import Judge
    from ._report import Report
    from ._wires import Answer, Lane

__all__ = ["Runs"]

_NO_SUCH_OP = "no.such-op"
_TURNS_MAX = 4
_SHOWN = 200  # characters of an error's message
_REFUSED = {"ok": False, "error": {"code": "forbidden", "message": "amplifier-kernel check makes no system calls"}}
_ENDS = ("MSG-01", "STDIO-10", "HTTP-09", "CONN-01")


class Runs:
    """Invokes a module. ``examples`` are the calls that do no harm, as their author says."""

    def __init__(self, examples: Sequence[Example], judge: Judge, report: Report, seconds: float) -> None:
        self._examples = examples
        self._judge = judge
        self._report = report
        self._seconds = seconds
        self._sound: dict[int, float] = {}  # the seconds of those that answered as expected, by their numbers
        self._unknown_is_sound = False
        self.health_is_sound: bool = False
        """Whether health answers as it should."""
        self.late: list[int | None] = []
        """What was cancelled and had no reply in time."""

    def one_of_each_op(self) -> list[int]:
        """Number an example of each op that has succeeded."""
        sound = [number for number in self._sound if self._examples[number].error is None]
        return list({self._examples[number].op: number for number in reversed(sound)}.values())[::-1]

    async def unknown_op(self, lane: Lane) -> None:
        """Invoke an op that no module has."""
        lane.look("OP-01")
        answer = await lane.ask(self._invoke(_NO_SUCH_OP, {}, "an unknown op"))
        self._unknown_is_sound = self._judge_unknown(lane, answer)

    async def example(self, number: int, lane: Lane) -> None:
        """Invoke an example once, and look at its outcome. If it asks for system calls, let all of them fail."""
        example = self._examples[number]
        lane.look("OP-02", "OP-04")
        lane.during = str(example)
        if example.error is None and (why := own_misfit(self._judge.schema("inputs", example.op), dict(example.args))):
            lane.broke("OP-04", why, op=example.op)
        request = self._of_example(example)
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = await lane.ask(request)
        took = clock() - began
        reply = self._judge.reply(lane, answer, example.op)
        if reply is None:
            return
        if "pending" not in reply:
            if self._judge_outcome(lane, example, answer):
                self._sound[number] = took
        else:
            self._sound[number] = took
            await self._resume(lane, request, reply)

    async def misfit(self, number: int, lane: Lane) -> None:
        """Invoke an example with args that do not fit its ``inputs``, if these refuse any."""
        example = self._examples[number]
        spoilt = spoil(example.args, self._judge.schema("inputs", example.op))
        if spoilt is None:
            return
        lane.look("OP-05")
        answer = await lane.ask(self._invoke(example.op, spoilt, f"op {example.op} with args that do not fit"))
        reply = self._judge.reply(lane, answer, example.op)
        if reply is not None and answer.code != "bad_request":
            got = "the error " + line_of(str(answer.code), _SHOWN) if answer.code else "a reply that is no error"
            lane.broke("OP-05", f"expected the error bad_request, got {got}", line=answer.line, op=example.op)

    async def cancel(self, number: int | None, lane: Lane) -> None:
        """Cancel an example, or an unknown op, and go on. What a cancel breaks shows in what follows, too."""
        with lane.blaming(dict.fromkeys(_ENDS, lane.cancel_rule)):
            if not await lane.cancel(self._to_cancel(number)):
                self.late.append(number)
            if lane.usable:
                await lane.ask(self._health("health after a cancel"))
            if lane.usable:
                await lane.cancel_nothing()
                await lane.ask(self._health("health after a cancel of what is not in flight"))

    async def cancel_again(self, number: int | None, lane: Lane) -> None:
        """Cancel once more what had no reply in time: the machine may have been busy."""
        with lane.blaming(dict.fromkeys(_ENDS, lane.cancel_rule)):
            if not await lane.cancel(self._to_cancel(number)) and lane.silent:
                lane.broke(lane.cancel_rule, "no reply within a second of the cancel, twice")

    async def at_once(self, count: int, lane: Lane) -> None:
        """Send ``count`` requests together: health, an unknown op, and the examples, as far as they work alone."""
        lane.look("OP-06")
        others = ["health"] * self.health_is_sound + [_NO_SUCH_OP] * self._unknown_is_sound
        sound: list[Example | str] = [self._examples[number] for number in sorted(self._sound)] or [*others]
        order = [*others[:count], *islice(cycle(sound), max(count - len(others), 0))]
        with lane.blaming("OP-06"):
            await asyncio.gather(*(self._one_of_many(lane, each, f"{count} requests at once") for each in order))

    async def _one_of_many(self, lane: Lane, each: Example | str, among: str) -> None:
        if each == "health":
            self._judge.health(lane, await lane.ask(self._health(among)))
        elif isinstance(each, str):
            self._judge_unknown(lane, await lane.ask(self._invoke(each, {}, among)))
        else:
            answer = await lane.ask(self._of_example(each, among))
            reply = self._judge.reply(lane, answer, each.op)
            if reply is not None and "pending" not in reply:
                self._judge_outcome(lane, each, answer)

    async def _resume(self, lane: Lane, request: Request, reply: Mapping[str, Any]) -> None:
        """Resume a request with failed calls, until it has its reply or asks no end."""
        if any(self._report.status(f"PENDING-0{n}") == "broken" for n in (1, 2)):
            return
        lane.look("PENDING-04")
        with lane.blaming(dict.fromkeys((*_ENDS, "MSG-02"), "PENDING-04")):
            for _ in range(_TURNS_MAX):
                pending = reply["pending"]
                results = [_REFUSED] * len(pending["syscalls"])
                resume = {"state": pending.get("state"), "results": results}
                params = {**(request.params or {}), "resume": resume}
                subject = f"op {request.op}, resumed with failed calls"
                again = Request(method="invoke", params=params, subject=subject, seconds=self._seconds, op=request.op)
                answered = self._judge.reply(lane, await lane.ask(again), request.op)
                if answered is None or "pending" not in answered:
                    return
                reply = answered

    def _to_cancel(self, number: int | None) -> Request:
        if number is None:
            return self._invoke(_NO_SUCH_OP, {}, "an unknown op")
        return attrs.evolve(self._of_example(self._examples[number]), takes=self._sound[number])

    def _judge_unknown(self, lane: Lane, answer: Answer) -> bool:
        reply = self._judge.reply(lane, answer)
        if reply is not None and answer.code != "unsupported_op":
            got = f"the error {line_of(answer.code, _SHOWN)}" if answer.code else "a reply that is no error"
            lane.broke("OP-01", f"expected the error unsupported_op, got {got}", line=answer.line)
        return answer.code == "unsupported_op"

    def _judge_outcome(self, lane: Lane, example: Example, answer: Answer) -> bool:
        """Hold a final reply against what the author expects, and a result against the module's own schema."""
        reply, code = answer.reply or {}, answer.code
        if code != example.error:
            expected = "a result" if example.error is None else f"the error {example.error}"
            message = (reply.get("error") or {}).get("message", "")
            got = "a result" if code is None else f"the error {line_of(f'{code}: {message}', _SHOWN)}"
            lane.broke("OP-02", f"expected {expected}, got {got}", line=answer.line, op=example.op)
            return False
        if code is None:
            self._judge.result(lane, answer, example.op)
            event = example.args.get("event")
            if example.op == "on_event" and isinstance(event, dict) and event.get("event") == "policy:request":
                self._judge.decision(lane, answer, example.op)
        return True

    def _of_example(self, example: Example, subject: str = "") -> Request:
        self._report.runs[example.op] += 1
        return self._invoke(example.op, example.args, subject or str(example))

    def _invoke(self, op: str, args: Mapping[str, Any], subject: str) -> Request:
        params = {
            "op": op,
            "args": args,
            "session_id": f"ses_{secrets.token_hex(8)}",
            "request_id": secrets.token_hex(16),
            "span_id": secrets.token_hex(8),
            "deadline_ms": int(self._seconds * 1000),
        }
        return Request(method="invoke", params=params, subject=subject, seconds=self._seconds, op=op)

    def _health(self, subject: str) -> Request:
        return Request(method="health", params={}, subject=subject, seconds=self._seconds)
