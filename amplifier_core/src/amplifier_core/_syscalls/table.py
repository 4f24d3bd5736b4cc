"""System calls: what a module's ``pending`` asks for, by the names of section 8, each on the part that carries it out.

Owns the reading of their arguments. Whether a module may make a call was checked before (``_turns``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest

from . import context
from .emit import emit
from .hooks import register_hook
from .invoke import invoke
from .mount import describe, mount, mounts, unmount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amplifier_core._sessions.registry import Registry
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation

    Args = Mapping[str, Any]


class SystemCalls:
    """The system calls of one kernel, made for modules: in the session of the invocation, under its span."""

    def __init__(self, sessions: Registry) -> None:
        self._sessions = sessions
        self._calls: dict[str, Callable[[Invocation, Args], Awaitable[Any]]] = {
            "session.create": self._session_create,
            "session.fork": self._session_fork,
            "session.end": self._session_end,
            "mount": _mount,
            "unmount": _unmount,
            "mounts": _mounts,
            "describe": _describe,
            "invoke": _invoke,
            "emit": _emit,
            "register_hook": _register_hook,
            "context.get": _context_get,
            "context.set_fragment": _context_set_fragment,
        }

    async def __call__(self, caller: Invocation, name: str, args: Args) -> Any:
        """Make one call and give its result. Raises ``KernelError``; unknown arguments are ignored."""
        return await self._calls[name](caller, args)  # `_turns` has refused any other name

    async def _session_create(self, caller: Invocation, args: Args) -> dict[str, str]:
        return {"session_id": self._sessions.new(_need(args, "plan", dict), caller.state, caller.span).session_id}

    async def _session_fork(self, caller: Invocation, args: Args) -> dict[str, str]:
        parent = self._reachable(caller, _need(args, "parent_id", str))
        return {"session_id": self._sessions.branch(parent.session_id, caller.state, caller.span).session_id}

    async def _session_end(self, caller: Invocation, args: Args) -> dict[str, Any]:
        state = self._reachable(caller, _need(args, "session_id", str))
        if state is caller.state:
            raise BadRequest("args.session_id: a module cannot end the session in which it is invoked")
        await self._sessions.finish(state, _may(args, "status", str) or "ok", caller.span)
        return {}

    def _reachable(self, caller: Invocation, session_id: str) -> SessionState:
        """Find a session that a module may act on: its own, and those that were made in it by system calls."""
        state = self._sessions.find(session_id)
        if state is not caller.state and state.maker_id != caller.state.session_id:
            raise BadRequest(f"session_id: no session {session_id!r} is open")  # what others have is not told
        return state


async def _mount(caller: Invocation, args: Args) -> dict[str, str]:
    path, descriptor = _need(args, "path", str), _need(args, "descriptor", dict)
    return await mount(caller.state, path, descriptor, caller.guard.left(), trusted=False, caller=caller)


async def _unmount(caller: Invocation, args: Args) -> dict[str, list[str]]:
    return {"removed": await unmount(caller.state, _need(args, "path", str), _may(args, "name", str), caller.span)}


async def _mounts(caller: Invocation, args: Args) -> list[dict[str, Any]]:
    return mounts(caller.state, _may(args, "path", str))


async def _describe(caller: Invocation, args: Args) -> dict[str, Any]:
    return describe(caller.state, _need(args, "path", str))


async def _invoke(caller: Invocation, args: Args) -> Any:
    path, op, timeout_ms = _need(args, "path", str), _need(args, "op", str), _may(args, "timeout_ms", int)
    if timeout_ms is not None and timeout_ms <= 0:
        raise BadRequest(f"args.timeout_ms: expected a positive integer, got {timeout_ms}")
    timeout = None if timeout_ms is None else timeout_ms / 1000
    chunks = caller.chunks if _may(args, "stream", bool) else None
    return await invoke(caller.state, path, op, _need(args, "args", dict), timeout, caller, chunks=chunks)


async def _emit(caller: Invocation, args: Args) -> dict[str, Any]:
    event, data = _need(args, "event", str), _need(args, "data", dict)
    emit(caller.state, event, data, caller.module.path, caller.span)
    return {}


async def _register_hook(caller: Invocation, args: Args) -> dict[str, Any]:
    event, endpoint, priority = (
        _need(args, "event", str),
        _need(args, "endpoint_ref", str),
        _need(args, "priority", int),
    )
    return register_hook(caller.state, event, endpoint, priority, caller)


async def _context_get(caller: Invocation, _: Args) -> dict[str, Any]:
    return context.get(caller.state, caller.span)


async def _context_set_fragment(caller: Invocation, args: Args) -> dict[str, Any]:
    if "value" not in args:
        raise BadRequest("args.value: expected any JSON, got nothing")
    return context.set_fragment(caller.state, _need(args, "key", str), args["value"], caller.span)


_NOUNS = {str: "text", bool: "true or false", int: "an integer", dict: "an object"}


def _need(args: Args, name: str, kind: type) -> Any:
    if name not in args:
        raise BadRequest(f"args.{name}: expected {_NOUNS[kind]}, got nothing")
    if type(args[name]) is not kind:
        raise BadRequest(f"args.{name}: expected {_NOUNS[kind]}, got {type(args[name]).__name__}")
    return args[name]


def _may(args: Args, name: str, kind: type) -> Any:
    return None if args.get(name) is None else _need(args, name, kind)
