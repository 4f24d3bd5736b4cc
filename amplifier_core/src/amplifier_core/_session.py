"""The Python face of the system calls of section 8, under their own names: `Sessions`, `Session` and `Context`.

Owns no behaviour: each call is carried out by the file that its name says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._modules.deadline import seconds_of
from ._protocol.errors import BadRequest
from ._syscalls.context import get as get_fragments
from ._syscalls.context import set_fragment
from ._syscalls.emit import Emitter
from ._syscalls.hooks import register_hook
from ._syscalls.invoke import invoke
from ._syscalls.mount import describe, mount, mounts, unmount
from ._syscalls.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from ._protocol.descriptor import ModuleDescriptor
    from ._protocol.plan import Plan
    from ._sessions.registry import Registry
    from ._sessions.state import SessionState
    from ._syscalls.hooks import Hook


class Sessions:
    """The system calls that make and end sessions."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def create(self, plan: Plan | Mapping[str, Any]) -> Session:
        """Create a session with nothing mounted and nobody asked or told."""
        return Session(self._registry.create(plan))

    async def fork(self, parent_id: str) -> Session:
        """Make a session with its parent's mounts, hooks, context and grants as they stand; it can only narrow them.

        It shares the running modules and lives on when its parent ends.
        """
        return Session(self._registry.fork(parent_id))

    async def end(self, session_id: str, status: str = "ok") -> dict[str, Any]:
        """End a session, with those that its modules made in it.

        What it has in flight is cancelled, and modules that no other session holds are closed.
        """
        await self._registry.end(self._registry.find(session_id), status)
        return {}


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
        timeout: float | None = None,
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
        return mounts(self._state, path)

    async def describe(self, path: str) -> dict[str, Any]:
        """Give a module's description, as it was verified when it was mounted."""
        return describe(self._state, path)

    def invoke(
        self,
        path: str,
        op: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Invoke ``op`` of the module at ``path`` and return its result, any JSON value.

        ``timeout`` is in seconds and can only shorten what the descriptor allows. Raises ``KernelError``.
        """
        return invoke(self._state, path, op, args, timeout)

    def stream(
        self,
        path: str,
        op: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,
    ) -> Stream:
        """Invoke ``op`` and read its chunks as they come: ``async for chunk in session.stream(…)``.

        The deadline spans the whole invocation; a reader that takes its time spends it. Raises ``KernelError``.
        """
        return Stream(lambda chunks: invoke(self._state, path, op, args, timeout, chunks=chunks))

    def emit(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Emit an event. Returns at once and never raises while the kernel is open.

        What cannot be recorded as it was given is recorded all the same: a name that is not ``namespace:verb`` or is
        the kernel's own as ``events:dropped`` with the error, members of ``data`` that are not JSON by an ``error``.
        """
        state = self._state
        if state.runtime.bus.closed:
            raise BadRequest("the kernel is closed")
        Emitter(state).emit_or_drop(event, data)

    async def register_hook(self, event: str, endpoint_ref: str | Hook, *, priority: int = 0) -> dict[str, Any]:
        """Have an async callable, or the module at a path, told of events (``name``, ``prefix:*`` or ``*``).

        On ``policy:request`` it is asked instead, lowest priority first, and answers as section 6 says.
        """
        return register_hook(self._state, event, endpoint_ref, priority)


class Context:
    """The context of one session, as its system calls."""

    __slots__ = ("_state",)

    def __init__(self, state: SessionState) -> None:
        self._state = state

    async def get(self) -> dict[str, Any]:
        """Give ``{"fragments": {key: value}}``, in the order in which the keys were first set."""
        return get_fragments(self._state)

    async def set_fragment(self, key: str, value: Any) -> dict[str, Any]:
        """Set one fragment; this session and its later forks see it. Raises ``BadRequest`` for what is not JSON."""
        return set_fragment(self._state, key, value)
