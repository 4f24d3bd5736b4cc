"""Hooks: makes a policy hook or an observer of an async callable or of the module at a path.

Owns the registration (system call ``register_hook``). `_sessions.policy` calls the policy hooks, `_events.observer` the
observers.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from amplifier_core._events.observer import Observer
from amplifier_core._protocol.errors import BadRequest, meant, short
from amplifier_core._protocol.event import KERNEL_EVENTS, Event, decode_event, is_event_pattern
from amplifier_core._protocol.ids import of_embedder
from amplifier_core._protocol.json import encode_checked
from amplifier_core._sessions.current import current_span, enter, outside
from amplifier_core._sessions.namespace import ObserverHook, PolicyHook

from .invoke import ask_module, tell_module

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.errors import KernelError
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.runtime import Runtime
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation

POLICY_REQUEST = "policy:request"


class Hook(Protocol):
    """An async callable for ``register_hook``: as an observer it returns nothing, as a policy hook a ``Decision``."""

    def __call__(self, event: Event, /) -> Awaitable[Any]:
        """Take one event. What an observer raises is recorded as ``hook:error``; a policy hook denies with it."""


HOOKS_MAX = 64
"""The most hooks that one module registers in a session.

It is a quarter of those of all its modules, and a sixteenth of those in all sessions that were made in one.
"""

_PRIORITY_MAX = 2**63 - 1


def register_hook(
    state: SessionState, event: str, endpoint: str | Hook, priority: int, caller: Invocation | None = None
) -> dict[str, Any]:
    """Register one hook. Raises ``BadRequest`` if ``endpoint`` is neither an async callable nor a mounted path.

    A policy hook that a fork or a module (``caller``) registers can deny; its allow adds nothing.
    """
    state.check_call()
    if not is_event_pattern(event):
        near = meant(event, KERNEL_EVENTS) if isinstance(event, str) else ""
        what = "a name of the kernel's or a module's own" if near else "a name"
        raise BadRequest(f"event: expected {what}, prefix:* or *, got {short(event)}{near}")
    if type(priority) is not int:
        raise BadRequest(f"priority: expected an integer, got {short(priority)}")
    if abs(priority) > _PRIORITY_MAX:
        raise BadRequest(f"priority: expected an integer of at most 64 bits, got one of {priority.bit_length()}")
    name = _name(endpoint)
    maker = caller.module if caller else None
    if maker is not None:
        _check_quota(state, maker)
    _add(state, event, endpoint, priority, name, maker)
    data = {"event": event, "endpoint_ref": name, "priority": priority}
    span = caller.span if caller else current_span(state.runtime)
    state.record("hook:register", span, status="ok", data=data)
    return {}


def _check_quota(state: SessionState, maker: Module) -> None:
    """Refuse a module that has too many hooks in this session, or whose neighbours have."""
    made = list(state.namespace.made_by_modules())
    if sum(each.maker is maker for each in made) >= HOOKS_MAX:
        raise BadRequest(f"register_hook: {maker.path} has registered {HOOKS_MAX} hooks in this session: the limit")
    if len(made) >= 4 * HOOKS_MAX:
        raise BadRequest(f"register_hook: the modules of this session have registered {4 * HOOKS_MAX} hooks: the limit")
    root = state.root()
    namespaces = {id(each.namespace): each.namespace for each in (root, *root.descendants())}  # forks share them
    if len({id(hook) for each in namespaces.values() for hook in each.made_by_modules()}) >= 16 * HOOKS_MAX:
        where = f"session {root.session_id} and in those that were made in it"
        raise BadRequest(f"register_hook: modules have registered {16 * HOOKS_MAX} hooks in {where}: the limit")


def _add(state: SessionState, event: str, endpoint: str | Hook, priority: int, name: str, maker: Module | None) -> None:
    if callable(endpoint):
        module = None
        ask: Callable[..., Awaitable[Any]] = functools.partial(_ask_callable, endpoint, name)
        tell: Callable[[bytes], Awaitable[None]] = functools.partial(_tell_callable, endpoint)
    else:
        module = _mounted(state, endpoint)
        ask = functools.partial(_ask_module, module, state)
        tell = functools.partial(tell_module, state, module)
    if event == POLICY_REQUEST:
        may_grant = state.parent_id is None and maker is None
        state.own_namespace().add_policy(PolicyHook(name, ask, priority, may_grant, module, maker))
        return

    def report(event: str, data: Mapping[str, Any], error: KernelError | None) -> None:
        state.record(event, status="error" if error else None, data=data, error=error)
        text = error.message if error else f"{data['count']} events were dropped: it is too slow"
        bare = f"observer {name} failed" if error else ""
        state.runtime.bus.warn(f"{event} {name}", f"observer {name}: {text.removeprefix(f'observer {name} ')}", bare)

    observer = outside(Observer, name, tell, report, state.runtime.settings.observer_queue)
    state.own_namespace().add_observer(ObserverHook(event, observer, priority, module.path if module else None, maker))


def _name(endpoint: object) -> str:
    """Give a hook's name for events: a module's path, or a callable's qualified name. Raises ``BadRequest``."""
    if isinstance(endpoint, str):
        return endpoint
    function = endpoint.func if isinstance(endpoint, functools.partial) else endpoint
    calls = (function, function.__call__) if callable(function) else ()
    if not any(inspect.iscoroutinefunction(each) for each in calls):
        raise BadRequest(f"endpoint_ref: expected an async callable or the path of a module, got {short(endpoint)}")
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _mounted(state: SessionState, path: object) -> Module:
    mount = state.namespace.mounts.get(path) if isinstance(path, str) else None
    if mount is None:
        raise BadRequest(f"endpoint_ref: expected an async callable or the path of a mounted module, got {short(path)}")
    return mount.module


async def _ask_callable(hook: Hook, name: str, state: SessionState, request: Event, span: Span) -> Any:
    # a copy through JSON: a hook cannot change the event of others
    answer = _answer(hook, decode_event(encode_checked(request)), state.runtime, span)
    return await state.runtime.run_foreign(answer, f"policy hook {name}")


async def _answer(hook: Hook, event: Event, runtime: Runtime, span: Span) -> Any:
    """Call the hook, in a task of its own. What it calls is a part of what it is asked about."""
    enter(runtime, of_embedder(span))
    return await hook(event)


async def _ask_module(module: Module, home: SessionState, state: SessionState, request: Event, span: Span) -> Any:
    return await ask_module(state, home, module, request, span)


async def _tell_callable(hook: Hook, line: bytes) -> None:
    await hook(decode_event(line))
