"""Sessions by id: how each is created from a plan, forked from a parent, found and ended.

Owns the registry of one kernel's sessions. The Python face of these system calls is `_session`.
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
    """One kernel's sessions by id: how each is made, found and ended."""

    def __init__(self, running: Callable[[], Runtime], states: dict[str, SessionState]) -> None:
        self._running = running
        self._states = states

    def create(
        self, plan: Plan | Mapping[str, Any], creator: SessionState | None = None, span: Span | None = None
    ) -> SessionState:
        """Create a session's state. ``creator`` is the session whose module makes it by a system call, in ``span``."""
        runtime = self._running()
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
        runtime = self._running()
        parent = self.find(parent_id)
        parent.check_open()
        state = self._add(runtime, parent.plan, parent.namespace.share(), creator)
        state.parent_id = parent_id
        state.fragments = parent.fragments
        state.fragments_shared = parent.fragments_shared = True
        state.record("session:fork", span, status="ok", data={"parent_id": parent_id})
        return state

    def find(self, session_id: object) -> SessionState:
        """Give a session's state. Raises ``BadRequest`` if it is not there any more."""
        self._running()
        state = self._states.get(session_id) if isinstance(session_id, str) else None
        if state is None:
            raise BadRequest(f"session_id: no session {session_id!r} is open")
        return state

    async def end(self, state: SessionState, status: object, span: Span | None = None) -> None:
        """End one session; ``span`` is that of the invocation whose system call this is."""
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
    """Bring a session from open to ended: stop what is in flight, say so, then let go of what it holds.

    Observers that are modules hear ``session:end`` last; those that are callables hear the modules' exits too.
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
