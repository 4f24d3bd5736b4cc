"""The Python face of a session: the system calls of section 8 under their own names.

Owns nothing but that face; each call is carried out by the part that its name says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._context import Context
from ._errors import BadRequest, Forbidden, KernelError
from ._event import KERNEL_EVENTS, checked_data, is_event_name, is_event_pattern
from ._guard import seconds_of
from ._hooks import add_hook, hook_name
from ._invoke import invoke
from ._mount import mount, unmount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._descriptor import ModuleDescriptor
    from ._hooks import Hook
    from ._plan import Plan
    from ._state import SessionState


class Session:
    """One session. Made by ``kernel.session.create`` and ``kernel.session.fork``.

    Any number of tasks may call it at the same time. After its end every call but ``emit`` raises ``BadRequest``.
    """

    __slots__ = ("_state",)

    def __init__(self, state: SessionState) -> None:
        self._state = state

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._state.session_id

    @property
    def parent_id(self) -> str | None:
        """The id of the session that this one was forked from."""
        return self._state.parent_id

    @property
    def plan(self) -> Plan:
        """The plan that the session, or the first of its ancestors, was created from."""
        return self._state.plan

    @property
    def context(self) -> Context:
        """The session's context: ``get`` and ``set_fragment``."""
        return Context(self._state)

    async def mount(
        self,
        path: str,
        descriptor: ModuleDescriptor | Mapping[str, Any],
        *,
        trusted: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - one timer for all deadlines
    ) -> dict[str, str]:
        """Start a module, verify it and add it below a mount path; ``timeout`` (seconds) spans all of that.

        ``trusted=True`` runs a module that nothing isolates on this host; the log names it. Returns the module's
        ``name`` and its full ``path``. Raises ``KernelError`` with the cause, and then nothing is left of the module.
        """
        seconds = seconds_of(timeout, self._state.runtime.settings.timeout)
        return await mount(self._state, path, descriptor, seconds, trusted=trusted)

    async def unmount(self, path: str, name: str | None = None) -> dict[str, list[str]]:
        """Remove a module (its path, or a mount path and its name), or all modules of a mount path."""
        return {"removed": await unmount(self._state, path, name)}

    async def mounts(self, path: str | None = None) -> list[dict[str, Any]]:
        """List what is mounted, or what is mounted at or below one path, in the order of mounting."""
        self._state.check_open()
        return [
            {
                "path": at,
                "name": entry.module.descriptor.name,
                "kind": entry.module.descriptor.kind,
                "version": entry.module.descriptor.version,
                "capabilities": list(entry.granted),
            }
            for at, entry in self._state.namespace.mounts.items()
            if path is None or at == path or at.startswith(f"{path}/")
        ]

    async def describe(self, path: str) -> dict[str, Any]:
        """Give a module's description, as it was verified when it was mounted."""
        self._state.check_open()
        entry = self._state.namespace.mounts.get(path)
        if entry is None:
            raise BadRequest(f"path: nothing is mounted at {path!r}")
        return dict(entry.module.description)

    async def invoke(
        self,
        path: str,
        op: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - one timer for all deadlines
    ) -> Any:  # noqa: ANN401 - a result is any JSON
        """Invoke ``op`` of the module at ``path`` and return its result, any JSON value.

        ``timeout`` is in seconds and can only shorten what the descriptor allows. Raises ``KernelError``.
        """
        return await invoke(self._state, path, op, args, timeout)

    def emit(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Emit an event. Returns at once and never raises while the kernel is open.

        What cannot be recorded as it was given is recorded all the same: a name that is not ``namespace:verb`` or is
        the kernel's own as ``events:dropped`` with the error, members of ``data`` that are not JSON by an ``error``.
        """
        state = self._state
        if state.runtime.bus.closed:
            raise BadRequest("the kernel is closed")
        refusal: KernelError | None = None
        if not is_event_name(event):
            refusal = BadRequest(f"event: expected namespace:verb, got {event!r}")
        elif event in KERNEL_EVENTS:
            refusal = Forbidden(f"event: {event} is the kernel's own")
        elif state.life != "open":
            refusal = BadRequest(f"session {state.session_id} has ended")
        if refusal is not None:
            state.emit("events:dropped", status="error", data={"event": str(event)[:128], "count": 1}, error=refusal)
            return
        shown, fault = checked_data(data, state.runtime.bus.limit)
        error = BadRequest(fault) if fault else None
        state.emit(event, status="error" if error else None, data=shown, error=error, bounded=True)

    async def register_hook(self, event: str, endpoint_ref: str | Hook, *, priority: int = 0) -> dict[str, Any]:
        """Have an async callable, or the module at a path, told of events (``name``, ``prefix:*`` or ``*``).

        On ``policy:request`` it is asked instead, lowest priority first, and answers as section 6 says.
        """
        state = self._state
        state.check_open()
        if not is_event_pattern(event):
            raise BadRequest(f"event: expected a name, prefix:* or *, got {event!r}")
        if type(priority) is not int:
            raise BadRequest(f"priority: expected an integer, got {priority!r}")
        add_hook(state, event, endpoint_ref, priority)
        name = endpoint_ref if isinstance(endpoint_ref, str) else hook_name(endpoint_ref)
        state.emit("hook:register", status="ok", data={"event": event, "endpoint_ref": name, "priority": priority})
        return {}
