"""One way through the kernel: resolve the path, ask the gate, call the module within its deadline, record the event.

Owns ``invoke`` and what rides on it: asking a policy hook and telling an observer that are modules themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._modules.deadline import seconds_of
from amplifier_core._protocol.errors import BadRequest, Timeout, Unreachable, failure_of, short
from amplifier_core._protocol.json import NotJson, encode, encode_checked
from amplifier_core._protocol.message import result_of, result_size
from amplifier_core._sessions.policy import INVOKE, Question, authorize

from .emit import Emitter
from .turns import Invocation, take_turn, take_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.event import Event, SizeLimit
    from amplifier_core._protocol.ids import Span
    from amplifier_core._protocol.message import Message
    from amplifier_core._sessions.namespace import Mount
    from amplifier_core._sessions.state import SessionState
    from amplifier_core.hookspecs._chunks import Chunks


async def invoke(  # noqa: PLR0913 - what, where, with what, for whom, for how long and for which eyes
    state: SessionState,
    path: str,
    op: str,
    args: Mapping[str, Any] | msgspec.Raw,
    timeout: float | None,
    caller: Invocation | None = None,
    *,
    asking: Span | None = None,
    chunks: Chunks | None = None,
) -> Any:
    """Invoke one operation of a mounted module and give its result.

    Raises ``KernelError``; its ``details`` name the module. Every outcome is one ``module:invoke`` event, in the log
    before this returns or raises. ``caller`` is the invocation whose system call this is. With ``asking`` the kernel
    itself asks a policy hook about the operation of that span: nobody is asked whether it may.
    """
    state.check_open()
    runtime = state.runtime
    above = caller.span if caller else asking
    span = runtime.ids.child(above) if above else runtime.ids.root()
    began = runtime.clock.monotonic()
    data: dict[str, Any] = {"op": op}
    try:
        mount = _resolve(state, path)
        request = _request(op, args, mount.module)
        data["args"] = _shown(request, runtime.bus.limit)
        _check_depth(span)
        seconds = _seconds(timeout, mount.module, runtime.settings.timeout, caller)
        with runtime.deadlines.within(seconds, path, state) as deadline:
            granted: Sequence[str] = mount.granted
            if not (asking or mount.session_wide) and (granted or state.namespace.policy):
                by = caller.module.path if caller else None
                question = Question(INVOKE, mount.module, granted, op, msgspec.Raw(request), by)
                granted = await _pass_gate(state, mount, question, span)
            idle_ms = mount.module.descriptor.limits.idle_ms
            if idle_ms is not None:
                deadline.idle_seconds = idle_ms / 1000
            turns = Invocation(state, mount.module, op, request, span, deadline, granted, mount.session_wide, chunks)
            message = await take_turn(turns)
            if message.pending or message.events:
                message = await take_turns(turns, message)
        result = result_of(message, path)
        data["result"] = result if message.size <= runtime.bus.limit.size else _shown_result(message, runtime.bus.limit)
    except BaseException as error:
        failure = failure_of(error)
        failure.details.setdefault("module", path)
        if isinstance(failure, Timeout):
            _add_clues(state, path, failure)
        op_shown = op if isinstance(op, str) and len(op) <= _NAME_MAX else short(op)
        path_shown = path if isinstance(path, str) and len(path) <= _NAME_MAX else None
        _record(state, span, path_shown, began, {**data, "op": op_shown}, failure)
        raise
    _record(state, span, path, began, data)
    return result


def _add_clues(state: SessionState, path: str, failure: Timeout) -> None:
    mount = state.namespace.mounts.get(path)
    for name, clue in (mount.module.clues() if mount else {}).items():
        failure.details.setdefault(name, clue)


async def ask_module(state: SessionState, module: Module, request: Event, asking: Span) -> Any:
    """Ask a module that is a policy hook. One that is no longer mounted here fails, and so denies."""
    mount = state.namespace.mounts.get(module.path)
    if mount is None or mount.module is not module:
        raise Unreachable(f"{module.path} is no longer mounted")
    args = msgspec.Raw(b'{"event":%b}' % encode_checked(request))
    return await invoke(state, module.path, "on_event", args, state.runtime.settings.policy_timeout, asking=asking)


async def tell_module(state: SessionState, module: Module, line: bytes) -> None:
    """Tell a module that is an observer. This is not itself an event, unless it fails.

    What it emits in its reply is told to no observer, or an observer of everything would tell itself for ever.
    """
    params = b'{"op":"on_event","args":{"event":' + line.rstrip() + b"}}"
    with state.runtime.deadlines.within(state.runtime.settings.timeout, module.path):
        message = await module.call("invoke", params)
    if message.events:
        Emitter(state, module.path, answering=True).emit_all(message.events)
    result_of(message, module.path)


def _seconds(timeout: float | None, module: Module, default: float, caller: Invocation | None) -> float:
    """Give the time that an invocation may take: what the caller, its own deadline and the descriptor allow."""
    limit = module.descriptor.limits.timeout_ms
    seconds = seconds_of(timeout, default) if limit is None else min(seconds_of(timeout, limit / 1000), limit / 1000)
    return seconds if caller is None else max(0.001, min(seconds, caller.deadline.seconds_left()))


def _check_depth(span: Span) -> None:
    """End a cycle of modules that call each other."""
    if span.depth > _DEPTH_MAX:
        raise BadRequest(f"path: invocations are nested more than {_DEPTH_MAX} deep")


_DEPTH_MAX = 32
_NAME_MAX = 256  # characters of a path or an op: what is longer has no place in the log


def _resolve(state: SessionState, path: object) -> Mount:
    if not isinstance(path, str):
        raise BadRequest(f"path: expected text, got {type(path).__name__}")
    mount = state.namespace.mounts.get(path)
    if mount is None:
        raise BadRequest(f"path: nothing is mounted at {short(path)}")
    return mount


def _request(op: object, args: object, module: Module) -> bytes:
    """Check what a caller wants to send, and encode the arguments: once, for the wire, the gate and the log."""
    if not isinstance(op, str) or not op:
        raise BadRequest(f"op: expected a name, got {short(op)}")
    if len(op) > _NAME_MAX:
        raise BadRequest(f"op: expected a name of at most {_NAME_MAX} characters, got {len(op)}")
    if type(args) is msgspec.Raw:  # the kernel's own
        encoded = bytes(args)
    elif type(args) is dict:
        try:
            encoded = encode(args, "args")
        except NotJson as error:
            raise BadRequest(str(error)) from None
    else:
        raise BadRequest(f"args: expected an object, got {type(args).__name__}")
    limit = module.descriptor.message_bytes
    if len(encoded) > limit:
        raise BadRequest(f"args: expected at most {limit} bytes of JSON (limits.message_bytes), got {len(encoded)}")
    return encoded


async def _pass_gate(state: SessionState, mount: Mount, question: Question, span: Span) -> Sequence[str]:
    """Have policy decide; what it grants holds for this invocation, or is remembered for the session."""
    decision = await authorize(state, question, span)
    path = mount.module.path
    if decision.scope == "session" and state.namespace.mounts.get(path) is mount:
        state.namespace = state.namespace.own()
        state.namespace.mounts[path] = msgspec.structs.replace(mount, granted=decision.granted, session_wide=True)
    if _resolve(state, path).module is not mount.module:
        raise BadRequest(f"path: {path} was unmounted before it was its turn")
    return decision.granted


def _shown(encoded: bytes, limit: SizeLimit) -> object:
    """Stand for a value in the log: the JSON itself, or what is left of it (section 7)."""
    return msgspec.Raw(encoded) if len(encoded) <= limit.size else limit.omitted(encoded)


def _shown_result(message: Message, limit: SizeLimit) -> object:
    size = result_size(message)
    if size <= limit.size:
        return message.result
    return limit.omitted(encode_checked(message.result)) if limit.sha256 else {"$omitted": size}


def _record(
    state: SessionState,
    span: Span,
    path: str | None,
    began: float,
    data: dict[str, Any],
    error: KernelError | None = None,
) -> None:
    state.record(
        "module:invoke",
        span,
        module=path,
        status="error" if error else "ok",
        duration_ms=int((state.runtime.clock.monotonic() - began) * 1e6) / 1000,
        data=data,
        error=error,
        bounded=True,
    )
