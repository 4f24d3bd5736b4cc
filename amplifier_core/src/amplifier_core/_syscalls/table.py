"""System calls: what a module's ``pending`` may ask for (section 8), whether the module may, and who does it.

Owns the table of the system calls, the check of each one against its module's own capabilities, and the reading of its
arguments. The work itself is done by the neighbours in this folder and by the registry of sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from msgspec import Raw

from amplifier_core._protocol.errors import BadRequest, KernelError, UnsupportedOp, meant, short
from amplifier_core._protocol.json import encode_checked, scrub
from amplifier_core._sessions.policy import INVOKE, MOUNT, Question, authorize

from .context import read, set_fragment
from .delegation import check_granted
from .describe import describe
from .emit import Emitter
from .hooks import register_hook
from .invoke import InvokeRequest, invoke
from .mount import MountRequest, mount, mounts, unmount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amplifier_core._protocol.message import SystemCall
    from amplifier_core._sessions.registry import Registry
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation

    Args = dict[str, Any]


class _Row(NamedTuple):
    """One system call: who does it, and which argument a pattern in ``sys:NAME:PATTERN`` is held against."""

    handler: Callable[[SystemCalls, Invocation, Args], Awaitable[Any]]
    resource: str | None = None


class SystemCalls:
    """The system calls of one kernel. Each is made for a module: in the session and the span of its invocation."""

    def __init__(self, sessions: Registry) -> None:
        self._sessions = sessions

    async def __call__(self, caller: Invocation, call: SystemCall) -> Raw:
        """Check and make one call, and give its result as section 2 writes it. An error is a result, too."""
        try:
            row = self._table.get(call.name)
            if row is None:
                raise UnsupportedOp(f"there is no system call {short(call.name)}{meant(call.name, self._table)}")
            await _authorize(caller, call, row.resource)
            return Raw(encode_checked({"ok": True, "result": await row.handler(self, caller, call.args)}))
        except KernelError as error:
            return Raw(encode_checked({"ok": False, "error": scrub(error.body())}))

    async def _session_create(self, caller: Invocation, args: Args) -> dict[str, str]:
        plan = _required(args, "plan", dict)
        return {"session_id": self._sessions.create(plan, caller.state, caller.module, caller.span).session_id}

    async def _session_fork(self, caller: Invocation, args: Args) -> dict[str, str]:
        parent = self._reachable(caller, _required(args, "parent_id", str))
        return {
            "session_id": self._sessions.fork(parent.session_id, caller.state, caller.module, caller.span).session_id
        }

    async def _session_end(self, caller: Invocation, args: Args) -> dict[str, Any]:
        state = self._reachable(caller, _required(args, "session_id", str))
        if state is caller.state:
            raise BadRequest("args.session_id: a module cannot end the session in which it is invoked")
        await self._sessions.end(state, _optional(args, "status", str) or "ok", caller.span)
        return {}

    def _reachable(self, caller: Invocation, session_id: str) -> SessionState:
        """Find a session that a module may act on: its own, and those that were made in it by system calls."""
        state = self._sessions.find(session_id)
        if state is not caller.state and state.creator_id != caller.state.session_id:
            raise BadRequest(
                f"session_id: no session {short(session_id)} is open"
            )  # the same as for one that never was
        return state

    async def _mount(self, caller: Invocation, args: Args) -> dict[str, str]:
        path, descriptor = _required(args, "path", str), _required(args, "descriptor", dict)
        return await mount(caller.state, MountRequest(path, descriptor, caller.deadline.seconds_left()), caller)

    async def _unmount(self, caller: Invocation, args: Args) -> dict[str, list[str]]:
        path, name = _required(args, "path", str), _optional(args, "name", str)
        return {"removed": await unmount(caller.state, path, name, caller.span)}

    async def _mounts(self, caller: Invocation, args: Args) -> list[dict[str, Any]]:
        return mounts(caller.state, _optional(args, "path", str))

    async def _describe(self, caller: Invocation, args: Args) -> Raw:
        return await describe(caller.state, _required(args, "path", str), caller)

    async def _invoke(self, caller: Invocation, args: Args) -> Any:
        path, op = _required(args, "path", str), _required(args, "op", str)
        timeout_ms = _optional(args, "timeout_ms", int)
        if timeout_ms is not None and timeout_ms <= 0:
            raise BadRequest(f"args.timeout_ms: expected a positive integer, got {timeout_ms}")
        timeout = None if timeout_ms is None else timeout_ms / 1000
        chunks = caller.chunks if _optional(args, "stream", bool) else None
        _required(args, "args", dict)
        request = InvokeRequest(path, op, Raw(encode_checked(args.pop("args"))), timeout, chunks)  # one copy is enough
        return await invoke(caller.state, request, caller)

    async def _emit(self, caller: Invocation, args: Args) -> dict[str, Any]:
        event, data = _required(args, "event", str), _required(args, "data", dict)
        Emitter(caller.state, caller.module.path, caller.span).emit(event, data)
        return {}

    async def _register_hook(self, caller: Invocation, args: Args) -> dict[str, Any]:
        event, endpoint = _required(args, "event", str), _required(args, "endpoint_ref", str)
        return register_hook(caller.state, event, endpoint, _required(args, "priority", int), caller)

    async def _context_get(self, caller: Invocation, _: Args) -> dict[str, Any]:
        return {"fragments": {key: Raw(text) for key, text in read(caller.state, caller.span).items()}}

    async def _context_set_fragment(self, caller: Invocation, args: Args) -> dict[str, Any]:
        if "value" not in args:
            raise BadRequest("args.value: expected any JSON, got nothing")
        return set_fragment(caller.state, _required(args, "key", str), args["value"], caller.span)

    _table: ClassVar[Mapping[str, _Row]] = {
        "session.create": _Row(_session_create),
        "session.fork": _Row(_session_fork, "parent_id"),
        "session.end": _Row(_session_end, "session_id"),
        "mount": _Row(_mount, "path"),
        "unmount": _Row(_unmount, "path"),
        "mounts": _Row(_mounts, "path"),
        "describe": _Row(_describe, "path"),
        "invoke": _Row(_invoke, "path"),
        "emit": _Row(_emit, "event"),
        "register_hook": _Row(_register_hook, "event"),
        "context.get": _Row(_context_get),
        "context.set_fragment": _Row(_context_set_fragment, "key"),
    }


async def _authorize(caller: Invocation, call: SystemCall, resource: str | None) -> None:
    """Hold a call against its module's own capabilities, and ask policy unless it allowed them for the session.

    ``invoke`` and ``mount`` ask policy themselves, in the name of their target.
    """
    value = call.args.get(resource) if resource else None
    if isinstance(value, str) and len(value) > _TEXT_MAX:
        raise BadRequest(f"args.{resource}: expected at most {_TEXT_MAX} characters, got {len(value)}")
    word = f"sys:{call.name}:{value}" if isinstance(value, str) else f"sys:{call.name}"
    mount = check_granted(caller, (word,))
    if call.name in (INVOKE, MOUNT) or mount.session_wide or not caller.state.namespace.policy:
        return
    question = Question(call.name, caller.module, [word], args=Raw(encode_checked(call.args)))
    await authorize(caller.state, question, caller.span)
    check_granted(caller, (word,))


_TEXT_MAX = 1024  # characters: of paths, names, ids and keys
_INTEGER_MAX = 2**53  # what a float holds exactly
_NOUNS = {str: "text", bool: "true or false", int: "an integer", dict: "an object"}


def _required(args: Args, name: str, kind: type) -> Any:
    """Give an argument of the given type. Raises ``BadRequest``."""
    if name not in args:
        typo = next((f"; is it meant by args.{short(each)}?" for each in args if meant(each, (name,))), "")
        raise BadRequest(f"args.{name}: expected {_NOUNS[kind]}, got nothing{typo}")
    if type(args[name]) is not kind:
        raise BadRequest(f"args.{name}: expected {_NOUNS[kind]}, got {type(args[name]).__name__}")
    value = args[name]
    if kind is str and len(value) > _TEXT_MAX:
        raise BadRequest(f"args.{name}: expected at most {_TEXT_MAX} characters, got {len(value)}")
    if kind is int and abs(value) > _INTEGER_MAX:
        raise BadRequest(f"args.{name}: expected an integer of at most 2**53, got one of {value.bit_length()} bits")
    return value


def _optional(args: Args, name: str, kind: type) -> Any:
    """Give an argument that may be left out; ``None`` if it is, or is null."""
    return None if args.get(name) is None else _required(args, name, kind)
