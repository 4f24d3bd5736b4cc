"""The registry of one kernel's sessions: creates each from a plan, forks it from a parent, finds it by id, ends it.

Owns the ids and the end of a session. It checks no rights: `_syscalls.table` does that for a module's system calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core._protocol.errors import BadRequest, Cancelled
from amplifier_core._protocol.plan import Plan

from .namespace import Namespace
from .state import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core._protocol.ids import Span

    from .runtime import Runtime


class Registry:
    """One kernel's sessions by id. ``runtime`` gives the parts of the open kernel, or raises ``BadRequest``."""

    def __init__(self, runtime: Callable[[], Runtime], states: dict[str, SessionState]) -> None:
        self._runtime = runtime
        self._states = states

    def create(
        self, plan: Plan | Mapping[str, Any], creator: SessionState | None = None, span: Span | None = None
    ) -> SessionState:
        """Create a session's state. ``creator`` is the session whose module makes this system call, in ``span``."""
        runtime = self._runtime()
        if not isinstance(plan, Plan):
            plan = Plan.from_mapping(plan)
        state = self._add(runtime, plan, Namespace(), creator)
        data: dict[str, Any] = {"plan": {"goal": plan.goal, "inputs": plan.inputs}}
        if plan.unknown:
            data["unknown"] = list(plan.unknown)
        state.record("session:start", span, status="ok", data=data)
        return state

    def fork(self, parent_id: str, creator: SessionState | None = None, span: Span | None = None) -> SessionState:
        """Fork a session's state. ``creator`` and ``span`` are those of ``create``."""
        runtime = self._runtime()
        parent = self.find(parent_id)
        parent.check_open()
        state = self._add(runtime, parent.plan, parent.namespace.share(), creator)
        state.parent_id = parent_id
        state.fragments = parent.fragments
        state.fragments_shared = parent.fragments_shared = True
        state.record("session:fork", span, status="ok", data={"parent_id": parent_id})
        return state

    def find(self, session_id: object) -> SessionState:
        """Give a session's state. Raises ``BadRequest`` for a session that has ended or never was."""
        self._runtime()
        state = self._states.get(session_id) if isinstance(session_id, str) else None
        if state is None:
            raise BadRequest(f"session_id: no session {session_id!r} is open")
        return state

    async def end(self, state: SessionState, status: object, span: Span | None = None) -> None:
        """End one session, then the sessions that its modules made. ``span`` is that of a module's system call."""
        state.check_open()
        if not isinstance(status, str):
            raise BadRequest(f"status: expected text, got {type(status).__name__}")
        made = list((state.created or {}).values())
        try:
            await end_session(state, status, span)
        finally:
            self._states.pop(state.session_id, None)
            creator = self._states.get(state.creator_id or "")
            if creator is not None and creator.created is not None:
                creator.created.pop(state.session_id, None)
        for each in made:
            if each.phase == "open":
                await self.end(each, status, span)

    def _add(self, runtime: Runtime, plan: Plan, namespace: Namespace, creator: SessionState | None) -> SessionState:
        state = SessionState(runtime, "ses_" + runtime.ids.hex16(), plan, namespace)
        if creator is not None:
            state.creator_id = creator.session_id
            if creator.created is None:
                creator.created = {}
            creator.created[state.session_id] = state
        self._states[state.session_id] = state
        return state


async def end_session(state: SessionState, status: str, span: Span | None = None) -> None:
    """End an open session: cancel its waits, record ``session:end``, then release its modules and observers.

    ``session:end`` is the last event that observers in modules get; callables get the events of the modules' exits too.
    """
    if state.phase != "open":
        return
    state.phase = "ending"
    runtime = state.runtime
    await runtime.deadlines.stop(state, Cancelled(f"session {state.session_id} has ended"))
    state.record("session:end", span, status=status)
    try:
        await runtime.close(*state.namespace.release())
    finally:
        state.namespace = Namespace()
        state.phase = "ended"
