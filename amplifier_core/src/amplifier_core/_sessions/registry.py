"""The registry of one kernel's sessions: creates each from a plan, forks it from a parent, finds it by id, ends it.

Owns the ids and the end of a session. It checks no rights: `_syscalls.table` does that for a module's system calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, Cancelled, short
from amplifier_core._protocol.json import encode_checked
from amplifier_core._protocol.plan import Plan

from .current import current_span
from .namespace import Namespace
from .state import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.ids import Span

    from .runtime import Runtime

SESSIONS_MAX = 64
"""The most sessions that one module has open at a time, with those that were made in them.

It is a quarter of those that all modules of a session have.
"""

_STATUS_MAX = 256  # characters of the status of `session:end`


class Registry:
    """One kernel's sessions by id. ``runtime`` gives the parts of the open kernel, or raises ``BadRequest``."""

    def __init__(self, runtime: Callable[[], Runtime], states: dict[str, SessionState]) -> None:
        self._runtime = runtime
        self._states = states

    def create(
        self,
        plan: Plan | Mapping[str, Any],
        creator: SessionState | None = None,
        maker: Module | None = None,
        span: Span | None = None,
    ) -> SessionState:
        """Create a session's state. ``creator`` is the session whose module ``maker`` makes this system call."""
        runtime = self._runtime()
        size = 0
        if creator is not None:
            size = len(encode_checked(plan))
            _check_quota(creator, maker, plan, size)
        if not isinstance(plan, Plan):
            plan = Plan.from_mapping(plan)
        span = span or current_span(runtime)
        state = self._add(runtime, plan, Namespace(), creator, span)
        state.maker, state.plan_bytes = maker, size
        data: dict[str, Any] = {"plan": {"goal": plan.goal, "inputs": plan.inputs}}
        if plan.unknown:
            data["unknown"] = list(plan.unknown)
            for doubt in plan.doubts():
                runtime.bus.warn(doubt, doubt)
        state.record("session:start", span, status="ok", data=data)
        return state

    def fork(
        self,
        parent_id: str,
        creator: SessionState | None = None,
        maker: Module | None = None,
        span: Span | None = None,
    ) -> SessionState:
        """Fork a session's state. ``creator``, ``maker`` and ``span`` are those of ``create``."""
        runtime = self._runtime()
        parent = self.find(parent_id)
        parent.check_open()
        if creator is not None:
            _check_quota(creator, maker, parent.plan, parent.plan_bytes)
        span = span or current_span(runtime)
        state = self._add(runtime, parent.plan, parent.namespace.share(), creator, span)
        state.parent_id, state.maker, state.plan_bytes = parent_id, maker, parent.plan_bytes
        if state.policy is not parent.policy:  # that of sessions in which the parent was made, and this one was not
            state.own_namespace().policy = parent.policy
        state.fragments, state.fragments_bytes = parent.fragments, parent.fragments_bytes
        state.fragments_shared = parent.fragments_shared = True
        state.record("session:fork", span, status="ok", data={"parent_id": parent_id})
        return state

    def ids(self) -> list[str]:
        """List the ids of the sessions that have not ended."""
        return list(self._states)

    def find(self, session_id: object) -> SessionState:
        """Give a session's state. Raises ``BadRequest`` for a session that has ended or never was."""
        self._runtime()
        state = self._states.get(session_id) if isinstance(session_id, str) else None
        if state is None:
            raise BadRequest(f"session_id: no session {short(session_id)} is open")
        return state

    def find_within(self, session_id: str, session: SessionState, name: str = "session_id") -> SessionState:
        """Give a session that a module in ``session`` reaches: that one, or one made in it, or in one of those.

        Any other is refused like one that never was, as the argument ``name``.
        """
        state = self._states.get(session_id)
        if state is None or not state.is_within(session):
            raise BadRequest(f"args.{name}: no session {short(session_id)} is open")
        return state

    async def end(self, state: SessionState, status: object, span: Span | None = None) -> None:
        """End one session, then the sessions that its modules made. ``span`` is that of a module's system call.

        If the caller is cancelled, the ending goes on.
        """
        state.check_call()
        if not isinstance(status, str):
            raise BadRequest(f"status: expected text, got {type(status).__name__}")
        if len(status) > _STATUS_MAX:
            raise BadRequest(f"status: expected at most {_STATUS_MAX} characters, got {len(status)}")
        span = span or current_span(state.runtime)
        ending = [each for each in (state, *state.descendants()) if each.begin_end()]
        await state.runtime.complete(self._end_all(ending, status, span, asyncio.current_task()))

    async def _end_all(
        self, ending: Sequence[SessionState], status: str, span: Span | None, spared: asyncio.Task[Any] | None
    ) -> None:
        """End sessions whose ends have begun: from then on none of them takes a call, whichever ends first."""
        for state in ending:
            await self._end(state, status, span, spared)

    async def _end(self, state: SessionState, status: str, span: Span | None, spared: asyncio.Task[Any] | None) -> None:
        try:
            await end_session(state, status, span, spared)
        finally:
            self._states.pop(state.session_id, None)
            if state.creator is not None and state.creator.created is not None:
                state.creator.created.pop(state.session_id, None)

    def _add(
        self, runtime: Runtime, plan: Plan, namespace: Namespace, creator: SessionState | None, span: Span | None
    ) -> SessionState:
        state = SessionState(runtime, runtime.ids.session(span), plan, namespace)
        if creator is not None:
            state.creator = creator
            if creator.created is None:
                creator.created = {}
            creator.created[state.session_id] = state
        self._states[state.session_id] = state
        return state


def _check_quota(creator: SessionState, maker: Module | None, plan: object, size: int) -> None:
    """Refuse a module that has too much open already, or that above it whose session it is in."""
    creator.check_open()
    owner: SessionState | None = creator
    while owner is not None:
        _check_room(owner, maker, plan, size)
        maker, owner = owner.maker, owner.creator


def _check_room(owner: SessionState, maker: Module | None, plan: object, size: int) -> None:
    """Hold a new session against what the module has open. A plan counts once, however many forks share it."""
    made = [(each, *each.descendants()) for each in (owner.created or {}).values()]
    own = [each for tree in made if tree[0].maker is maker for each in tree]
    if len(own) >= SESSIONS_MAX:
        raise BadRequest(f"session: one module has at most {SESSIONS_MAX} sessions open that it made; end one first")
    if sum(map(len, made)) >= 4 * SESSIONS_MAX:
        raise BadRequest(f"session: the modules of one session have at most {4 * SESSIONS_MAX} sessions open")
    limit = owner.runtime.settings.fragment_bytes
    plans = {id(each.plan): each.plan_bytes for each in own if each.plan is not owner.plan}
    if plan is not owner.plan and id(plan) not in plans and sum(plans.values()) + size > limit:
        raise BadRequest(f"plan: expected at most {limit} bytes of JSON in all that a module has open, got {size} more")


async def end_session(
    state: SessionState, status: str, span: Span | None = None, spared: asyncio.Task[Any] | None = None
) -> None:
    """End a session whose end has begun: cancel its waits, but those of the ``spared`` task, and release what it has.

    ``session:end`` is the last event that observers in modules get; callables get the events of the modules' exits too.
    """
    runtime = state.runtime
    await runtime.deadlines.stop(state, Cancelled(f"session {state.session_id} has ended"), spared)
    state.record("session:end", span, status=status)
    try:
        await runtime.close(*state.namespace.release())
    finally:
        state.namespace = Namespace()
        state.phase = "ended"
