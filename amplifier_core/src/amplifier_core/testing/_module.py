"""The conformance check of a module: its three methods and its operations, over its real transport."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from amplifier_core._protocol.description import check_description
from amplifier_core._protocol.errors import Internal, KernelError, UnsupportedOp, short
from amplifier_core._protocol.json import encode_checked, finish_in_turns
from amplifier_core._protocol.message import result_of
from amplifier_core._protocol.schema import find_flaws
from amplifier_core.hookspecs import Host

from ._check import Check
from ._example import examples_of
from ._grant import missing_grant
from ._start import open_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core.hookspecs import Connection, Message

    from ._example import Example

_AT_ONCE = 16
_SHOWN = 200  # characters of what a module wrote
_NO_SUCH_OP = "no.such-op"


async def check_module(
    descriptor: ModuleDescriptor,
    examples: Mapping[str, Mapping[str, Any]] | Sequence[Example],
    *,
    seconds: float = 10.0,
    at_once: int = _AT_ONCE,
) -> list[Check]:
    """Check a module against the protocol, at the level of a ``Connection``: its three methods, and each example.

    ``amplifier-kernel check``, of the distribution amplifier-tools, also looks at what is on the wire.

    ``examples`` maps each op to its args; a list of ``Example`` may also expect errors. Each runs once by itself and
    then ``at_once`` times at once: 17 times, unless that is changed. No more requests are sent at once than
    ``limits.concurrency`` allows; if that is one, and with an ``at_once`` of 0, each example runs once. The system
    calls that a module asks for are looked at, and not made.

    A local module runs as an ordinary process, without isolation. ``seconds`` bounds the start and each check. If
    ``health`` has no answer, nothing else is asked. Raises ``KernelError`` or ``TimeoutError`` only if the module
    cannot be started.
    """
    host = Host()
    connection = open_connection(descriptor, host)
    probe = _Probe(connection, descriptor, examples_of(examples))
    found: list[Check] = []
    try:
        await asyncio.wait_for(connection.start(descriptor.capabilities, None), seconds)
        for rule, check in probe.checks(min(at_once, descriptor.limits.concurrency or at_once)):
            problem, details, answered = await _problem(check, seconds, connection)
            found.append(Check(rule.name, rule.section, problem, rule.id, details))
            if rule.id == "HEALTH-01" and not answered:
                break
    finally:
        await connection.close()
        await host.close()
    return found


class _Rule(NamedTuple):
    id: str
    section: str
    name: str


class _Probe:
    """The requests of the checks, on one connection."""

    def __init__(self, connection: Connection, descriptor: ModuleDescriptor, examples: Sequence[Example]) -> None:
        self._connection = connection
        self._descriptor = descriptor
        self._examples = examples

    def checks(self, at_once: int) -> Iterator[tuple[_Rule, Callable[[], Awaitable[str]]]]:
        """Give each rule with what looks at it."""
        yield _Rule("HEALTH-01", "2", "health answers {'status': 'ok'}"), self.health
        yield _Rule("DESCRIBE-02", "2", "describe matches the descriptor"), self.describe
        yield _Rule("OP-01", "5", "an unknown op is unsupported_op"), self.unknown_op
        yield _Rule("MSG-05", "preamble", "unknown fields are ignored"), self.unknown_field
        for each in self._examples:
            yield _Rule("OP-02", "2", f"{each} answers its example"), partial(self.example, each, 1)
        for each in self._examples if at_once > 1 else ():
            rule = _Rule("OP-06", "1", f"{each} answers {at_once} at once")
            yield rule, partial(self.example, each, at_once)

    async def health(self) -> str:
        health = await self._ask("health", {})
        return "" if isinstance(health, dict) and health.get("status") == "ok" else f"got {health!r}"

    async def describe(self) -> str:
        described = check_description(await self._ask("describe", {}), self._descriptor, self._descriptor.name)
        flaws: dict[str, str] = {}
        await finish_in_turns(find_flaws(described, flaws))
        for op, reason in flaws.items():
            return f"the schema of {short(op)}: {reason}"
        ops = dict.fromkeys(each.op for each in self._examples)
        missing = [op for op in ops if op not in described["inputs"] or op not in described["outputs"]]
        return f"inputs and outputs do not name {', '.join(missing)}" if missing else ""

    async def unknown_op(self) -> str:
        try:
            result = await self._ask("invoke", {"op": _NO_SUCH_OP, "args": {}})
        except UnsupportedOp:
            return ""
        return f"op {_NO_SUCH_OP!r} answered {result!r}"

    async def unknown_field(self) -> str:
        health = await self._ask("health", {"x-unknown": {"nested": [None]}})
        return "" if isinstance(health, dict) else f"got {health!r}"

    async def example(self, example: Example, times: int) -> str:
        """Run an example, as often as it says, at once."""
        asked = [self._outcome(example) for _ in range(times)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)  # each is awaited, whatever one of them raises
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return next(filter(None, map(str, outcomes)), "")

    async def _outcome(self, example: Example) -> str:
        try:
            result = await self._ask("invoke", {"op": example.op, "args": example.args})
        except KernelError as error:
            if error.code == example.error and error.replied:
                return ""
            raise
        return "" if example.error is None else f"expected the error {example.error}, got {short(result, _SHOWN)}"

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        reply = await self._connection.request(method, encode_checked(params))
        if method == "invoke" and reply.pending and reply.is_reply():
            return self._look_at_calls(reply)
        return result_of(reply, self._descriptor.name)

    def _look_at_calls(self, reply: Message) -> None:
        """Raise ``Internal`` for a system call that the kernel would refuse whatever policy allows. None is made."""
        for call in reply.pending.syscalls if reply.pending else ():
            if needed := missing_grant(call.name, call.args or {}, self._descriptor):
                raise Internal(f"pending: the descriptor does not declare {needed}")


async def _problem(
    check: Callable[[], Awaitable[str]], seconds: float, connection: Connection
) -> tuple[str, Mapping[str, Any], bool]:
    """Give the problem, what may explain it, and whether the module answered."""
    try:
        return await asyncio.wait_for(check(), seconds), {}, True
    except KernelError as error:
        return f"{error}{_reason(error.details)}", error.details, error.replied
    except TimeoutError:
        clues = connection.clues()
        return f"no answer within {seconds:g} s{_reason(clues)}", clues, False


def _reason(clues: Mapping[str, Any]) -> str:
    """Say on the same line what the module wrote meanwhile."""
    noise, tail = clues.get("noise"), str(clues.get("stderr", "")).strip().rpartition("\n")[2]
    stdout = f"; its stdout had a line that is no reply: {short(noise.get('first'), _SHOWN)}" if noise else ""
    return f"{stdout}; its stderr ends with {short(tail, _SHOWN)}" if tail else stdout
