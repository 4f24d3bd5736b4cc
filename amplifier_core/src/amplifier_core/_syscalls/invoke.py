"""Invocations: resolve the path, ask policy, call the module within its deadline, record the event.

Owns the system call ``invoke``, and the calls to modules that are policy hooks or observers. `turns` owns the system
calls of the module.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from amplifier_core._modules.deadline import seconds_of
from amplifier_core._protocol.errors import BadRequest, KernelError, Unreachable, failure_of, meant, short
from amplifier_core._protocol.ids import read_traceparent
from amplifier_core._protocol.json import NotJson, encode, encode_checked
from amplifier_core._protocol.message import result_of, result_size
from amplifier_core._sessions.current import current_span
from amplifier_core._sessions.policy import INVOKE, Question, authorize

from .emit import Emitter
from .recording import record_reply
from .turns import Invocation, take_turn, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.event import Event, SizeLimit
    from amplifier_core._protocol.ids import Span
    from amplifier_core._protocol.message import Message
    from amplifier_core._sessions.namespace import Mount
    from amplifier_core._sessions.state import SessionState
    from amplifier_core.hookspecs._chunks import Chunks


class InvokeRequest(msgspec.Struct, frozen=True, gc=False):
    """The arguments of the system call ``invoke`` (section 8). ``chunks`` is the reader of the module's chunks.

    ``traceparent`` is the W3C trace context of a caller outside of the kernel, whose trace this continues.
    """

    path: str
    op: str
    args: Mapping[str, Any] | msgspec.Raw
    timeout: float | None = None  # seconds
    chunks: Chunks | None = None
    traceparent: str | None = None


async def invoke(
    state: SessionState, request: InvokeRequest, caller: Invocation | None = None, policy_span: Span | None = None
) -> Any:
    """Invoke one operation of a mounted module and give its result.

    Raises ``KernelError``; its ``details`` name the module. Every outcome is one ``module:invoke`` event, in the log
    before this returns or raises. ``caller`` is the invocation whose system call this is. For a module that is a policy
    hook, ``policy_span`` is the span of the operation in question; policy is not asked about such an invocation.
    """
    state.check_call()
    runtime = state.runtime
    limit = runtime.bus.limit
    path, op, chunks = request.path, request.op, request.chunks
    above = caller.span if caller else policy_span or current_span(runtime)
    data: dict[str, Any] = {"op": op}
    remote = request.traceparent and read_traceparent(request.traceparent, runtime.bus.warn)
    if remote:
        span = runtime.ids.continued(remote)
        data["traceparent"] = remote.header
    elif policy_span:
        span = runtime.ids.hook_call(policy_span)
    else:
        span = runtime.ids.child(above) if above else runtime.ids.root()
    began = runtime.clock.monotonic()
    try:
        mount = state.namespace.mounts.get(path) if isinstance(path, str) else None
        if mount is None:
            _refuse_path(path, () if caller else state.namespace.mounts)
        module = mount.module
        args = _encode_args(op, request.args, module)
        data["args"] = args if len(args) <= limit.size else limit.omitted(args)
        if above:
            _check_depth(span)
        seconds = _time_limit(request.timeout, module, runtime.settings.timeout, caller)
        with runtime.deadlines.within(seconds, path, state) as deadline:
            runtime.ids.take_end(span, deadline.fail)
            granted: Sequence[str] = mount.granted
            calling = caller.names_seen_from(state) if caller else _NOBODY
            policy = state.policy
            if not (policy_span or mount.session_wide is policy) and (granted or policy):
                granted = await _authorize(state, mount, op, args, span, calling)
            asked = None if policy_span else state.policy
            invocation = Invocation(state, module, op, args, span, deadline, granted, chunks, asked, calling)
            if runtime.settings.event_starts:
                invocation.starts = partial(
                    state.record, "module:pre_invoke", span, module=path, data=data, bounded=True
                )
            message = await take_turn(invocation)
            if message.pending or message.events or invocation.asked is not state.policy:
                message = await take_turns(invocation, message)
        result = result_of(message, path)
        data["result"] = result if message.size <= limit.size else _shown_result(message, limit)
    except BaseException as error:
        failure = failure_of(error)
        _record_failure(state, span, began, request, data, failure)
        if isinstance(error, KernelError) or not isinstance(error, Exception):
            raise
        raise failure from error
    state.record("module:invoke", span, module=path, status="ok", began=began, data=data, bounded=True)
    return result


async def ask_module(state: SessionState, home: SessionState, module: Module, question: Event, span: Span) -> Any:
    """Call a module that is a policy hook: in the session in question if it is mounted there, else where it registered.

    Raises ``Unreachable`` after its unmount; policy turns that into a deny.
    """
    place = next((each for each in (state, home) if _holds(each, module)), None)
    if place is None:
        raise Unreachable(f"{module.path} is no longer mounted")
    args = msgspec.Raw(b'{"event":%b}' % encode_checked(question))
    request = InvokeRequest(module.path, "on_event", args, state.runtime.settings.policy_timeout)
    return await invoke(place, request, policy_span=span)


def _holds(state: SessionState, module: Module) -> bool:
    mount = state.namespace.mounts.get(module.path)
    return mount is not None and mount.module is module


async def tell_module(state: SessionState, module: Module, line: bytes) -> None:
    """Call a module that is an observer. The call is no event of its own, unless it fails.

    Events in its reply go to no observer; otherwise an observer of every event would call itself without end.
    """
    params = b'{"op":"on_event","args":{"event":' + line.rstrip() + b"}}"
    with state.runtime.deadlines.within(state.runtime.settings.timeout, module.path):
        message = await module.call("invoke", params)
    if message.events:
        if state.runtime.settings.recording:
            record_reply(state, module, "on_event", message)
        await Emitter(state, module.path, answering=True).emit_all(message.events)
    result_of(message, module.path)


def _time_limit(timeout: float | None, module: Module, default: float, caller: Invocation | None) -> float:
    """Give the seconds for an invocation: the least of ``timeout``, the descriptor's and the caller's."""
    limit_ms = module.descriptor.limits.timeout_ms
    seconds = default if limit_ms is None else limit_ms / 1000
    if timeout is not None:
        asked = seconds_of(timeout, default)
        seconds = asked if limit_ms is None else min(asked, seconds)
    return seconds if caller is None else max(0.001, min(seconds, caller.deadline.seconds_left()))


_NOBODY: Mapping[str, str] = {}  # makes no system call: the embedder
_DEPTH_MAX = 32
_NAME_MAX = 256  # characters of an op, and of a path in the log


def _check_depth(span: Span) -> None:
    """Refuse an invocation that is nested too deep, such as one of modules that call each other in a cycle."""
    if span.depth > _DEPTH_MAX:
        raise BadRequest(f"path: invocations are nested more than {_DEPTH_MAX} deep")


def _refuse_path(path: object, mounted: Iterable[str]) -> NoReturn:
    """Refuse a path, and say which of those ``mounted`` it is like: a module may not know of others than it names."""
    if not isinstance(path, str):
        raise BadRequest(f"path: expected text, got {type(path).__name__}")
    raise BadRequest(f"path: nothing is mounted at {short(path)}{meant(path, mounted)}")


def _encode_args(op: object, args: object, module: Module) -> msgspec.Raw:
    """Check ``op`` and ``args``, and encode the arguments once for the module, policy and the log."""
    if not isinstance(op, str) or not op:
        raise BadRequest(f"op: expected a name, got {short(op)}")
    if len(op) > _NAME_MAX:
        raise BadRequest(f"op: expected a name of at most {_NAME_MAX} characters, got {len(op)}")
    if type(args) is dict:
        try:
            encoded = msgspec.Raw(encode(args, "args"))
        except NotJson as error:
            raise BadRequest(str(error)) from None
    elif type(args) is msgspec.Raw:  # the kernel's own
        encoded = args
    else:
        raise BadRequest(f"args: expected an object, got {type(args).__name__}")
    if len(encoded) > module.message_bytes:
        limit = f"{module.message_bytes} bytes of JSON (limits.message_bytes)"
        raise BadRequest(f"args: expected at most {limit}, got {len(encoded)}")
    return encoded


async def _authorize(
    state: SessionState, mount: Mount, op: str, args: msgspec.Raw, span: Span, caller: Mapping[str, str]
) -> Sequence[str]:
    """Ask policy. What it grants holds for this invocation, or is kept in the mount for the session."""
    path = mount.module.path
    question = Question(INVOKE, mount.module, mount.granted, op, args, **caller)
    decision = await authorize(state, question, span)
    if decision.scope == "session" and state.namespace.mounts.get(path) is mount:
        kept = msgspec.structs.replace(mount, granted=decision.granted, session_wide=state.policy)
        state.own_namespace().mounts[path] = kept
    if not _holds(state, mount.module):
        raise BadRequest(f"path: {path} was unmounted while policy was asked")
    return decision.granted


def _shown_result(message: Message, limit: SizeLimit) -> object:
    """Give the log's form of a result: the value itself, or what section 7 says of one that is too large."""
    size = result_size(message)
    if size <= limit.size:
        return message.result
    return limit.omitted(encode_checked(message.result)) if limit.sha256 else {"$omitted": size}


def _record_failure(
    state: SessionState, span: Span, began: float, request: InvokeRequest, data: dict[str, Any], failure: KernelError
) -> None:
    path, op = request.path, request.op
    path_shown = path if isinstance(path, str) and len(path) <= _NAME_MAX else None
    op_shown = op if isinstance(op, str) and len(op) <= _NAME_MAX else short(op)
    mount = state.namespace.mounts.get(path) if path_shown else None
    if mount is not None:
        from amplifier_core._modules.reasons import explain  # noqa: PLC0415 - 2 ms for its patterns

        explain(failure, mount.module, f"invoke {op_shown}")
    failure.details["module"] = path_shown or short(path)
    shown = {**data, "op": op_shown}
    state.record(
        "module:invoke", span, module=path_shown, status="error", began=began, data=shown, error=failure, bounded=True
    )
