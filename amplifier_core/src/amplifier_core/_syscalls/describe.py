"""What a module says of itself: asked and verified at its mount, and again after it has said that it changed.

Owns the system call ``describe``. A change is noted when the connection reports it, and looked at when somebody asks.
So a module that reports changes without end costs one question, and two events, for each answer that is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from amplifier_core._protocol.description import check_description
from amplifier_core._protocol.errors import BadRequest, Unreachable, failure_of, short
from amplifier_core._protocol.json import encode_checked, finish_in_turns
from amplifier_core._protocol.message import result_of
from amplifier_core._sessions.current import current_span

if TYPE_CHECKING:
    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation


async def describe(state: SessionState, path: str, caller: Invocation | None = None) -> Raw:
    """Give a module's description as JSON, as it was verified last.

    If the module has said that it changed, it is asked first, by the rules of the mount. What is refused raises the
    error of the mount, and is asked again the next time. ``caller`` is the invocation whose system call this is.
    """
    module = _mounted(state, path)
    if module.is_outdated:
        seconds = caller.deadline.seconds_left() if caller else state.runtime.settings.timeout
        with state.runtime.deadlines.within(max(0.001, seconds), f"describing {path}", state):
            async with module.describing:
                if module.is_outdated:
                    await _describe_again(state, module, caller)
        module = _mounted(state, path)
    return Raw(module.description)


async def check_health(module: Module) -> None:
    """Ask a module whether it is well. Raises ``Unreachable`` if it is not."""
    health = result_of(await module.call("health", b"{}"), f"{module.path} health")
    if not isinstance(health, dict) or health.get("status") != "ok":
        raise Unreachable(f'{module.path}: health: expected {{"status": "ok"}}, got {short(health)}')


async def verify_description(module: Module) -> None:
    """Ask a module what it is, and keep the answer if it fits the descriptor.

    What is no JSON Schema is named under ``flawed``, beside what the module itself says there.
    """
    from amplifier_core._protocol.schema import find_flaws  # noqa: PLC0415 - only a mount needs it

    changes = module.changes  # one that comes meanwhile may be missing in the answer
    answer = result_of(await module.call("describe", b"{}"), f"{module.path} describe")
    described = check_description(answer, module.descriptor, module.path)
    found: dict[str, str] = {}
    await finish_in_turns(find_flaws(described, found))
    if found:
        described = {**described, "flawed": {**found, **(described.get("flawed") or {})}}
    module.description = encode_checked(described)
    module.described = changes


def note_change(module: Module) -> bool:
    """Note that a module's description is another one, and tell whether that is news."""
    is_news = not module.is_outdated
    module.changes += 1
    return is_news


def _mounted(state: SessionState, path: object) -> Module:
    state.check_call()
    if not isinstance(path, str):
        raise BadRequest(f"path: expected text, got {type(path).__name__}")
    mount = state.namespace.mounts.get(path)
    if mount is None:
        raise BadRequest(f"path: nothing is mounted at {short(path)}")
    return mount.module


async def _describe_again(state: SessionState, module: Module, caller: Invocation | None) -> None:
    """Verify the description anew, and record what became of it."""
    before = _ops(module.description)
    failure: KernelError | None = None
    data: dict[str, Any] = {}
    try:
        await verify_description(module)
        after = _ops(module.description)
        data = {
            "added": [op for op in after if op not in before],
            "removed": [op for op in before if op not in after],
            "changed": [op for op in after if op in before and after[op] != before[op]],
            **flaws(module),
        }
        if state.runtime.settings.recording:
            data["description"] = Raw(module.description)
    except BaseException as error:
        failure = failure_of(error)
        failure.details.setdefault("module", module.path)
        raise
    finally:
        status, span = "error" if failure else "ok", caller.span if caller else current_span(state.runtime)
        state.record("module:changed", span, module=module.path, status=status, data=data, error=failure)


def flaws(module: Module) -> dict[str, Any]:
    """Give what a module says of operations that cannot be called, for the log: ``flawed``, if there are any."""
    told = msgspec.json.decode(module.description, type=_Flawed).flawed
    return {"flawed": told} if told and isinstance(told, dict) else {}


class _Flawed(msgspec.Struct):
    """What is wrong with operations, by their names."""

    flawed: Any = None


class _Ops(msgspec.Struct):
    """The schemas of a description's operations, not decoded."""

    inputs: dict[str, Raw]
    outputs: dict[str, Raw]


def _ops(description: bytes) -> dict[str, tuple[bytes, bytes]]:
    told = msgspec.json.decode(description, type=_Ops)
    none = Raw(b"")
    return {
        op: (bytes(told.inputs.get(op, none)), bytes(told.outputs.get(op, none))) for op in (told.inputs | told.outputs)
    }
