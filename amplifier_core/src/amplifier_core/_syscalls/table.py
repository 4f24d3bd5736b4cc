"""System calls: what a module's ``pending`` may ask for (section 8), whether the module may, and who does it.

Owns the table of the system calls, the check of each one against its module's own capabilities, and the reading of its
arguments. The work itself is done by the neighbours in this folder and by the registry of sessions.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from msgspec import Raw

from amplifier_core._protocol.errors import BadRequest, KernelError, UnsupportedOp, meant, path_of, short
from amplifier_core._protocol.json import encode_checked, scrub
from amplifier_core._sessions.policy import INVOKE, MOUNT, Question, authorize, authorize_again

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
    from amplifier_core._sessions.namespace import Mount
    from amplifier_core._sessions.registry import Registry
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation

    Args = dict[str, Any]


class _Row(NamedTuple):
    """One system call: who does it, its arguments, and the one that a pattern in ``sys:`` is held against.

    ``session`` is the argument that names the session in which it is done; without it that is the caller's.
    """

    handler: Callable[[SystemCalls, Invocation, SessionState, Args], Awaitable[Any]]
    args: tuple[str, ...]
    resource: str | None = None
    session: str | None = "session_id"


class SystemCalls:
    """The system calls of one kernel. Each is made for a module, in the span of its invocation.

    It is done in the module's session, or in one that was made in that. What it may do is what the module may.
    """

    def __init__(self, sessions: Registry) -> None:
        self._sessions = sessions

    async def __call__(self, caller: Invocation, call: SystemCall) -> Raw:
        """Check and make one call, and give its result as section 2 writes it. An error is a result, too."""
        try:
            row = self._table.get(call.name)
            if row is None:
                raise UnsupportedOp(f"there is no system call {short(call.name)}{meant(call.name, self._table)}")
            args = call.args or {}
            word = _word(call.name, args, row.resource)
            mount = check_granted(caller, (word,))
            _check_args(call.name, args, row)
            state = self._find_session(caller, args, row.session)
            if call.name not in (INVOKE, MOUNT):
                await _ask_policy(caller, state, mount, _Call(call.name, args, word))
            return Raw(encode_checked({"ok": True, "result": await row.handler(self, caller, state, args)}))
        except KernelError as error:
            return Raw(encode_checked({"ok": False, "error": scrub(error.body())}))

    async def _session_create(self, caller: Invocation, _: SessionState, args: Args) -> dict[str, str]:
        plan = _required(args, "plan", dict)
        return {"session_id": self._sessions.create(plan, caller.state, caller.module, caller.span).session_id}

    async def _session_fork(self, caller: Invocation, _: SessionState, args: Args) -> dict[str, str]:
        parent_id = _required(args, "parent_id", str)
        parent = self._sessions.find_within(parent_id, caller.state, "parent_id")
        fork = self._sessions.fork(parent.session_id, caller.state, caller.module, caller.span)
        return {"session_id": fork.session_id}

    async def _session_end(self, caller: Invocation, _: SessionState, args: Args) -> dict[str, Any]:
        ended = self._sessions.find_within(_required(args, "session_id", str), caller.state)
        if ended is caller.state:
            raise BadRequest("args.session_id: a module cannot end the session in which it is invoked")
        await self._sessions.end(ended, _optional(args, "status", str) or "ok", caller.span)
        return {}

    def _find_session(self, caller: Invocation, args: Args, name: str | None) -> SessionState:
        """Find the session in which a call is done: the caller's, or the one that an argument names."""
        session_id = None if name is None else _optional(args, name, str)
        return caller.state if session_id is None else self._sessions.find_within(session_id, caller.state)

    async def _mount(self, caller: Invocation, state: SessionState, args: Args) -> dict[str, str]:
        path, descriptor = _required(args, "path", str), _required(args, "descriptor", dict)
        return await mount(state, MountRequest(path, descriptor, caller.deadline.seconds_left()), caller)

    async def _unmount(self, caller: Invocation, state: SessionState, args: Args) -> dict[str, list[str]]:
        path, name = _required(args, "path", str), _optional(args, "name", str)
        return {"removed": await unmount(state, path, name, caller.span)}

    async def _mounts(self, _: Invocation, state: SessionState, args: Args) -> list[dict[str, Any]]:
        return mounts(state, _optional(args, "path", str))

    async def _describe(self, caller: Invocation, state: SessionState, args: Args) -> Raw:
        return await describe(state, _required(args, "path", str), caller)

    async def _invoke(self, caller: Invocation, state: SessionState, args: Args) -> Any:
        path, op = _required(args, "path", str), _required(args, "op", str)
        timeout_ms = _optional(args, "timeout_ms", int)
        if timeout_ms is not None and timeout_ms <= 0:
            raise BadRequest(f"args.timeout_ms: expected a positive integer, got {timeout_ms}")
        timeout = None if timeout_ms is None else timeout_ms / 1000
        chunks = caller.chunks if _optional(args, "stream", bool) else None
        _required(args, "args", dict)
        request = InvokeRequest(path, op, Raw(encode_checked(args.pop("args"))), timeout, chunks)  # one copy is enough
        return await invoke(state, request, caller)

    async def _emit(self, caller: Invocation, state: SessionState, args: Args) -> dict[str, Any]:
        event, data = _required(args, "event", str), _required(args, "data", dict)
        Emitter(state, caller.module.path, caller.span).emit(event, data)
        return {}

    async def _register_hook(self, caller: Invocation, state: SessionState, args: Args) -> dict[str, Any]:
        event, endpoint = _required(args, "event", str), _required(args, "endpoint_ref", str)
        return register_hook(state, event, endpoint, _required(args, "priority", int), caller)

    async def _context_get(self, caller: Invocation, state: SessionState, _: Args) -> dict[str, Any]:
        return {"fragments": {key: Raw(text) for key, text in read(state, caller.span).items()}}

    async def _context_set_fragment(self, caller: Invocation, state: SessionState, args: Args) -> dict[str, Any]:
        if "value" not in args:
            raise BadRequest("args.value: expected any JSON, got nothing")
        return set_fragment(state, _required(args, "key", str), args["value"], caller.span)

    _table: ClassVar[Mapping[str, _Row]] = {
        "session.create": _Row(_session_create, ("plan",), session=None),
        "session.fork": _Row(_session_fork, ("parent_id",), "parent_id", session=None),
        "session.end": _Row(_session_end, ("session_id", "status"), "session_id", session=None),
        "mount": _Row(_mount, ("path", "descriptor", "session_id"), "path"),
        "unmount": _Row(_unmount, ("path", "name", "session_id"), "path"),
        "mounts": _Row(_mounts, ("path", "session_id"), "path"),
        "describe": _Row(_describe, ("path", "session_id"), "path"),
        "invoke": _Row(_invoke, ("path", "op", "args", "timeout_ms", "stream", "session_id"), "path"),
        "emit": _Row(_emit, ("event", "data", "session_id"), "event"),
        "register_hook": _Row(_register_hook, ("event", "endpoint_ref", "priority", "session_id"), "event"),
        "context.get": _Row(_context_get, ("session_id",)),
        "context.set_fragment": _Row(_context_set_fragment, ("key", "value", "session_id"), "key"),
    }


class _Call(NamedTuple):
    """One call, and what it needs as a capability."""

    name: str
    args: Args
    word: str


def _word(name: str, args: Args, resource: str | None) -> str:
    """Write what a call needs as a capability, in its one spelling: of ``*``, that is the call alone."""
    value = args.get(resource) if resource else None
    if isinstance(value, str) and len(value) > _TEXT_MAX:
        raise BadRequest(f"args.{resource}: expected at most {_TEXT_MAX} characters, got {len(value)}")
    return f"sys:{name}:{value}" if isinstance(value, str) and value != "*" else f"sys:{name}"


def _check_args(name: str, args: Args, row: _Row) -> None:
    """Refuse arguments that the call does not have: one that is left out by mistake would change what it does."""
    unknown = list(islice((each for each in args if each not in row.args), _NAMED_MAX))
    if unknown:
        named = ", ".join(path_of(f"args.{each[:_NAMED_LENGTH]}") for each in unknown)
        near = meant(unknown[0], row.args) if len(unknown) == 1 else ""
        raise BadRequest(f"{named}: {name} takes {', '.join(row.args)}{near}")


async def _ask_policy(caller: Invocation, state: SessionState, mount: Mount, call: _Call) -> None:
    """Ask the hooks that hold where the call is done. Those of the caller's session are among them.

    They are not asked again if they allowed the caller for the session. ``invoke`` and ``mount`` ask policy themselves,
    in the name of their target.
    """
    asked = mount.session_wide if mount.session_wide is caller.state.policy else None
    if state.policy is (asked or ()):
        return
    args = Raw(encode_checked(call.args))
    told = {} if state is caller.state else {"caller_session_id": caller.state.session_id}
    question = Question(call.name, caller.module, [call.word], args=args, **told)
    seconds = max(0.001, caller.deadline.seconds_left())
    with state.runtime.deadlines.within(seconds, "the policy hooks", state) as asking:  # it ends with that session
        asking.phase = "policy"
        if asked:
            await authorize_again(state, question, caller.span, asked)
        else:
            await authorize(state, question, caller.span)
    check_granted(caller, (call.word,))


_NAMED_MAX, _NAMED_LENGTH = 3, 100  # arguments that an error names, and characters of each
_TEXT_MAX = 1024  # characters: of paths, names, ids and keys
_INTEGER_MAX = 2**53  # what a float holds exactly
_NOUNS = {str: "text", bool: "true or false", int: "an integer", dict: "an object"}


def _required(args: Args, name: str, kind: type) -> Any:
    """Give an argument of the given type. Raises ``BadRequest``."""
    if name not in args:
        raise BadRequest(f"args.{name}: expected {_NOUNS[kind]}, got nothing")
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
