"""The faults of modules in this process: an object that misbehaves, its code, and how soon the caller knows.

Owns the cases. What blocks the loop, or the end of the program, is no case: nothing can bound it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from tests.faults.case import Case

from amplifier_core import BadRequest, ModuleDescriptor
from amplifier_transport_inproc import descriptor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stage import Stage

    from amplifier_transport_inproc import Context

AT_ONCE = 0.1
"""Seconds within which a caller is to know of what ended a call."""

PROMPT = 0.05
"""Seconds after its deadline at which a call has ended."""

SIBLINGS = 2


class Behaving:
    """A module without a fault. ``bad`` is one that it has as the op of that name."""

    def __init__(self, bad: Callable[[Context], Any] = lambda _: None) -> None:
        self.bad = bad

    def describe(self) -> dict[str, Any]:
        """Describe it."""
        schemas: dict[str, Any] = {"good": {}, "bad": {}}
        return {"name": "m", "kind": "tool", "capabilities": [], "inputs": schemas, "outputs": schemas}


class Async(Behaving):
    """One whose functions are ``async``."""

    async def invoke(self, op: str, args: dict[str, Any], context: Context) -> Any:
        """Answer."""
        return await self.bad(context) if op == "bad" else args


class Plain(Behaving):
    """One whose functions are plain."""

    def invoke(self, op: str, args: dict[str, Any], context: Context) -> Any:
        """Answer."""
        return self.bad(context) if op == "bad" else args


def call(name: str, code: str, kind: type[Async | Plain], bad: Any, *, bound: float = AT_ONCE, **expected: Any) -> Case:
    """Make a case of one invocation, with siblings in flight on the same module."""

    async def play(stage: Stage) -> None:
        limits = {"message_bytes": 1 << 20}
        await stage.mount(descriptor_of(kind(bad), limits=limits))
        await stage.bad(siblings=SIBLINGS)

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def started(name: str, code: str, path: str, **expected: Any) -> Case:
    """Make a case of a mount by an import path."""

    async def play(stage: Stage) -> None:
        told = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "inproc", "object": path}}
        await stage.provoke(stage.mount(ModuleDescriptor.from_mapping(told)))
        await stage.mount(descriptor_of(Async()))

    return Case(name=name, code=code, bound=1.0, play=play, **expected)


def refuse() -> None:
    """Refuse an argument."""
    raise BadRequest("args: expected others")


async def done(act: Callable[[], Any]) -> Any:
    """Do it in an ``async`` function."""
    return act()


async def hide(_: Context) -> None:
    """Hide one cancellation, and go on for a moment."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(PROMPT)


async def flood(context: Context) -> None:
    """Send chunks to nobody, without a pause."""
    for _ in range(100_000):
        context.chunk("x")


def wait(_: Context) -> None:
    """Hold a thread for longer than the deadline."""
    threading.Event().wait(1.0)


WRONG: tuple[tuple[str, str, Callable[[], Any], str], ...] = (
    ("raises", "internal", lambda: 1 / 0, "bad raised ZeroDivisionError"),
    ("refuses", "bad_request", refuse, "args: expected others"),
    ("ends the program", "internal", sys.exit, "bad raised SystemExit"),
    ("gives a set", "internal", lambda: {1}, "result: expected JSON, got set"),
    ("gives too much", "internal", lambda: "x" * (2 << 20), "expected at most 1048576 bytes"),
    ("gives too many values", "internal", lambda: [[]] * 300_000, "reply: "),
)

CASES = [
    *(
        call(f"a plain function {what}", code, Plain, lambda _, act=act: act(), says=says)
        for what, code, act, says in WRONG
    ),
    *(
        call(f"an async one {what}", code, Async, lambda _, act=act: done(act), says=says)
        for what, code, act, says in WRONG
    ),
    call("a plain function holds its thread", "timeout", Plain, wait, bound=PROMPT, deadline=0.2, says="runs_on"),
    call("an async one never ends", "timeout", Async, lambda _: asyncio.Event().wait(), bound=PROMPT, deadline=0.2),
    call("an async one hides its cancellation", "timeout", Async, hide, bound=PROMPT, deadline=0.2),
    call("chunks that nobody reads", "ok", Async, flood, bound=1.0),
    started("no such module", "unreachable", "tests.nothing:here", says="cannot be imported"),
    started("no such name", "unreachable", "tests.faults.of_inproc:nothing", says="cannot be imported"),
    started(
        "no module at all", "bad_request", "tests.faults.of_inproc:AT_ONCE", says="expected an object with describe()"
    ),
]
