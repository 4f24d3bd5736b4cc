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

    def new(
        self, plan: Plan | Mapping[str, Any], maker: SessionState | None = None, span: Span | None = None
    ) -> SessionState:
        """Create a session's state. ``maker`` is the session whose module makes it by a system call, in ``span``."""
        runtime = self._running()
        if not isinstance(plan, Plan):
            plan = Plan.from_mapping(plan)
        state = self._add(runtime, plan, Namespace(), maker)
        data: dict[str, Any] = {"plan": {"goal": plan.goal, "inputs": plan.inputs}}
        if plan.unknown:
            data["unknown"] = list(plan.unknown)
        state.record("session:start", span, status="ok", data=data)
        return state

    def branch(self, parent_id: str, maker: SessionState | None = None, span: Span | None = None) -> SessionState:
        """Fork a session's state. ``maker`` and ``span`` are those of ``new``."""
        runtime = self._running()
        parent = self.find(parent_id)
        parent.check_open()
        state = self._add(runtime, parent.plan, parent.namespace.share(), maker)
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

    async def finish(self, state: SessionState, status: object, span: Span | None = None) -> None:
        """End one session; ``span`` is that of the invocation whose system call this is."""
        state.check_open()
        if not isinstance(status, str):
            raise BadRequest(f"status: expected text, got {type(status).__name__}")
        made = list((state.made or {}).values())
        try:
            await end_session(state, status, span)
        finally:
            self._states.pop(state.session_id, None)
            maker = self._states.get(state.maker_id or "")
            if maker is not None and maker.made is not None:
                maker.made.pop(state.session_id, None)
        for each in made:
            if each.life == "open":
                await self.finish(each, status, span)

    def _add(self, runtime: Runtime, plan: Plan, namespace: Namespace, maker: SessionState | None) -> SessionState:
        state = SessionState(runtime, "ses_" + runtime.ids.hex16(), plan, namespace)
        if maker is not None:
            state.maker_id = maker.session_id
            if maker.made is None:
                maker.made = {}
            maker.made[state.session_id] = state
        self._states[state.session_id] = state
        return state


async def end_session(state: SessionState, status: str, span: Span | None = None) -> None:
    """Bring a session from open to ended: stop what is in flight, say so, then let go of what it holds.

    Observers that are modules hear ``session:end`` last; those that are callables hear the modules' exits too.
    """
    if state.life != "open":
        return
    state.life = "ending"
    runtime = state.runtime
    await runtime.guards.stop(state, Cancelled(f"session {state.session_id} has ended"))
    state.record("session:end", span, status=status)
    try:
        await runtime.close(*state.namespace.release())
    finally:
        state.namespace = Namespace()
        state.life = "ended"
