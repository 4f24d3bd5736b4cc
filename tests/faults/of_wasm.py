"""The faults of WASI programs: what one does when it is asked, its code, and how soon it is known.

Owns the cases. ``stage`` has the assertions that hold for each of them, beyond its row.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import wasmtime
from tests.faults.case import Case
from tests.wasm_transport.compiler import compile_c

from amplifier_core import ModuleDescriptor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.stage import Stage

AT_ONCE = 0.2
"""Seconds within which a caller is to know of what ended a call: a process ends."""

PROMPT = 0.05
"""Seconds after its deadline at which a call has ended."""

MIB = 1 << 20


def describe(module: Path, limits: dict[str, int], *args: str) -> ModuleDescriptor:
    """Describe a module."""
    transport = {"type": "wasm", "module": str(module), "args": args}
    told = {"name": "m", "kind": "tool", "transport": transport, "capabilities": [], "limits": limits}
    return ModuleDescriptor.from_mapping(told)


def case(
    name: str, code: str, op: str, *, bound: float = AT_ONCE, limits: dict[str, int] | None = None,
    args: Any = None, **expected: Any,
) -> Case:  # fmt: skip
    """Make a case of one invocation."""

    async def play(stage: Stage) -> None:
        bad = json.dumps({"op": op, "args": args or {}}, separators=(",", ":"))
        await stage.mount(describe(compile_c("attack"), limits or {}, bad))
        await stage.bad()

    return Case(name=name, code=code, bound=bound, play=play, **expected)


def starts(name: str, code: str, text: str, **expected: Any) -> Case:
    """Make a case of a module that does not come up; then one that does is mounted in its place."""

    async def play(stage: Stage) -> None:
        path = stage.folder / "bad.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        limits = {"memory_bytes": 16 * MIB}
        await stage.provoke(stage.mount(describe(path, limits), timeout=stage.case.deadline or 60.0))
        await stage.mount(describe(compile_c("attack"), limits, "{}"))

    return Case(name=name, code=code, bound=AT_ONCE * 5, play=play, **expected)


CASES = [
    case("a trap", "unreachable", "trap", says="unreachable", details={"exit_code": 134}),
    case("memory beyond its end", "unreachable", "outside", args={"n": 1}, says="out of bounds"),
    case("recursion without end", "unreachable", "dig", says="stack", bound=0.5),
    case("a call of WASI that does not fit", "unreachable", "clock", args={"n": 99}, says="Invalid enum value"),
    case("an exit", "unreachable", "exit", args={"n": 3}, details={"exit_code": 3}),
    case("too much memory at once", "oom", "grow", args={"n": 1024}, limits={"memory_bytes": 32 * MIB}, bound=0.5),
    case("a memory bomb", "oom", "eat", args={"n": 1}, limits={"memory_bytes": 32 * MIB}, bound=0.5),
    case("an endless loop with a budget", "budget_exceeded", "loop", limits={"cpu_ms": 100}, bound=0.5),
    case("an endless loop", "timeout", "loop", deadline=0.3, bound=PROMPT),
    case("a long sleep", "timeout", "sleep", args={"n": 60_000}, deadline=0.3, bound=PROMPT),
    case("a flood of stdout", "internal", "stdout", args={"n": 200_000}, says="no protocol", bound=2.0),
    starts("no function to start", "unreachable", "(module)", says="_start"),
    starts("an import that nobody has", "unreachable", '(module (import "a" "b" (func)))', says="unknown import"),
    starts(
        "a start that traps",
        "unreachable",
        '(module (func $f unreachable) (start $f) (func (export "_start")))',
        says="unreachable",
    ),
    starts(
        "a start that never ends",
        "timeout",
        '(module (func $f (loop br 0)) (start $f) (func (export "_start")))',
        says="health",
        deadline=1.5,
    ),
    starts(
        "more memory than it may have",
        "oom",
        '(module (memory (export "memory") 1000) (func (export "_start")))',
        says="limits.memory_bytes",
    ),
]
