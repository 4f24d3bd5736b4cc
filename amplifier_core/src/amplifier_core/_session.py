"""The Python interface to the system calls of section 8, under their names: `Sessions`, `Session` and `Context`.

Owns the signatures and the defaults. The work is done by `_syscalls` and `_sessions.registry`.
"""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from ._modules.deadline import seconds_of
from ._protocol.errors import BadRequest
from ._protocol.json import decode_checked
from ._sessions.current import current_span
from ._syscalls.context import get as get_fragments
from ._syscalls.context import set_fragment
from ._syscalls.describe import describe
from ._syscalls.emit import Emitter
from ._syscalls.hooks import register_hook
from ._syscalls.invoke import InvokeRequest, invoke
from ._syscalls.mount import MountRequest, mount, mounts, unmount
from ._syscalls.span import SessionSpan
from ._syscalls.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from types import TracebackType

    from ._protocol.descriptor import ModuleDescriptor
    from ._protocol.plan import Plan
    from ._sessions.registry import Registry
    from ._sessions.state import SessionState
    from ._syscalls.hooks import Hook


class Sessions:
    """The system calls that make and end sessions (protocol, section 8)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __repr__(self) -> str:
        return f"<Sessions: {', '.join(self._registry.ids()) or 'none open'}>"

    async def create(self, plan: Plan | Mapping[str, Any]) -> Session:
        """Create a session without mounts, hooks and fragments. Raises ``BadRequest`` for a plan that does not fit.

        ``async with await kernel.session.create(plan) as session`` ends it at the end of the block.
        """
        return Session(self._registry, self._registry.create(plan))

    async def fork(self, parent: Session | str) -> Session:
        """Create a session with the mounts, grants, hooks and context that its parent, or the one of that id, has now.

        Both share the running modules. A fork's own policy hooks can deny, but not grant. The fork stays open when its
        parent ends. Raises ``BadRequest`` if the parent is not open.
        """
        return Session(self._registry, self._registry.fork(_id_of(parent)))

    async def end(self, session: Session | str, status: str = "ok") -> dict[str, Any]:
        """End a session, or the one of that id, and the sessions that its modules created. Return ``{}``.

        Its mounts and invocations in progress raise ``Cancelled``. Modules that no other session holds are closed on
        return. ``status`` is any text, for the event ``session:end``. Raises ``BadRequest`` if the session is not open.
        """
        await self._registry.end(self._registry.find(_id_of(session)), status)
        return {}


def _id_of(session: Any) -> Any:
    return session.session_id if isinstance(session, Session) else session


class Session:
    """One session (protocol, section 8). Made by ``kernel.session.create`` and by a ``fork``.

    Any number of tasks may call it at the same time. After its end every call but ``emit`` raises ``BadRequest``.
    ``async with`` ends it: with the status ``ok``, or ``error`` after an exception.
    """

    __slots__ = ("_registry", "_state")

    def __init__(self, registry: Registry, state: SessionState) -> None:
        self._registry = registry
        self._state = state

    def __repr__(self) -> str:
        return f"<Session {self.session_id}: {self._state.phase}, {len(self._state.namespace.mounts)} mounts>"

    async def __aenter__(self) -> Self:
        self._state.check_call()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._state.is_here():
            await self._registry.end(self._state, "ok" if kind is None else "error")

    @property
    def session_id(self) -> str:
        """The session's id: ``ses_`` and 16 hexadecimal digits."""
        return self._state.session_id

    @property
    def parent_id(self) -> str | None:
        """The id of the session that this one was forked from. ``None``: it is no fork."""
        return self._state.parent_id

    @property
    def plan(self) -> Plan:
        """The plan of ``session.create``. A fork has the plan of its parent."""
        return self._state.plan

    @property
    def context(self) -> Context:
        """The session's context, with ``get`` and ``set_fragment``."""
        return Context(self._state)

    async def fork(self) -> Session:
        """Create a session with what this one has now, as ``kernel.session.fork`` does."""
        return Session(self._registry, self._registry.fork(self.session_id))

    async def end(self, status: str = "ok") -> dict[str, Any]:
        """End the session, as ``kernel.session.end`` does. Return ``{}``."""
        await self._registry.end(self._registry.find(self.session_id), status)
        return {}

    async def mount(
        self,
        path: str,
        descriptor: ModuleDescriptor | Mapping[str, Any],
        *,
        trusted: bool = False,
        isolation: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, str]:
        """Ask policy, start a module, verify it and add it below a mount path, in at most ``timeout`` seconds.

        ``descriptor`` has the shape of section 1. ``trusted=True`` runs a local module without isolation; the log names
        it. ``isolation`` confines it in place of the usual one: a name in the kernel's ``isolations``, or that of an
        installed one. Returns ``{"name": …, "path": …}`` with the module's full path. Raises ``KernelError`` with the
        cause; then nothing is left of the module.
        """
        seconds = seconds_of(timeout, self._state.runtime.settings.timeout)
        return await mount(self._state, MountRequest(path, descriptor, seconds, trusted, isolation))

    async def unmount(self, path: str, name: str | None = None) -> dict[str, list[str]]:
        """Remove one module, or all modules at a mount path without ``name``. Return ``{"removed": paths}``."""
        return {"removed": await unmount(self._state, path, name)}

    async def mounts(self, path: str | None = None) -> list[dict[str, Any]]:
        """List the mounts, or those at or below ``path``, in the order of mounting (shape: section 8)."""
        return mounts(self._state, path)

    async def describe(self, path: str) -> dict[str, Any]:
        """Give the description of a module (section 2), as it was verified at its mount.

        A module that has said since that it changed is asked again, and its answer verified by the same rules. Raises
        what the mount would raise, and ``Timeout``.
        """
        description: dict[str, Any] = decode_checked(await describe(self._state, path))
        return description

    def invoke(
        self,
        path: str,
        op: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Invoke ``op`` of the module at ``path`` and return its result, any JSON value.

        ``args`` is JSON: dict with text as keys, list or tuple, str, int, finite float, bool, ``None``. A ``UUID`` is
        its text, and a member of an ``Enum`` its value. Anything else, a subclass too, is refused with its path.
        ``timeout`` is in seconds; it cannot exceed the descriptor's ``timeout_ms``. Raises ``KernelError`` (section 5).
        ``traceparent`` is that of ``span``, for this one invocation.
        """
        return invoke(self._state, InvokeRequest(path, op, args, timeout, None, traceparent))

    def stream(
        self,
        path: str,
        op: str,
        args: dict[str, Any],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
    ) -> Stream:
        """Invoke ``op`` and read its chunks as they come: ``async for chunk in session.stream(…)``.

        ``timeout`` and ``traceparent`` are those of ``invoke``; the time that the reader takes counts. The stream
        raises ``KernelError``.
        """
        state = self._state
        check_loop = state.runtime.deadlines.check_loop
        request = partial(InvokeRequest, path, op, args, timeout, traceparent=traceparent)
        return Stream(lambda chunks: invoke(state, request(chunks)), check_loop)

    def span(self, name: str, *, data: Mapping[str, Any] | None = None, traceparent: str | None = None) -> SessionSpan:
        """Make a span of the embedder's own, such as one step of its agent: ``with session.span("agent.step"):``.

        What the block calls becomes a part of it in the log (section 7). ``name`` has at most 128 characters; the log
        has ``data``, JSON, beside it. ``traceparent`` is the W3C trace context of a caller outside of the kernel, as
        its HTTP request has it: the span continues that trace. One that is not valid is ignored, with a warning.
        """
        return SessionSpan(self._state, name, data, traceparent)

    def emit(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Record an event. Returns at once, and never raises while the kernel is open.

        Any thread may call it. In another thread than the kernel's the data are looked at now, and the event is in the
        log after the next turn of the event loop; the events of one thread stay in their order.

        An event whose name is not ``namespace:verb`` or is the kernel's own is recorded as ``events:dropped``, with the
        error. Members of ``data`` that are not JSON are left out and named in the event's ``error`` (section 7).
        """
        state = self._state
        runtime = state.runtime
        if runtime.bus.closed:
            raise BadRequest(runtime.bus.closed)
        emitter = Emitter(state, span=current_span(runtime))
        if runtime.inbox.thread == get_ident():
            emitter.emit_or_drop(event, data)
        else:
            runtime.inbox.leave(emitter.prepare(event, data))

    async def register_hook(self, event: str, endpoint_ref: str | Hook, *, priority: int = 0) -> dict[str, Any]:
        """Register an async callable, or the module at a path, as observer of events: ``name``, ``prefix:*`` or ``*``.

        For ``policy:request`` it becomes a policy hook instead: hooks are called lowest priority first, and answer as
        section 6 says. Returns ``{}``. Raises ``BadRequest``.
        """
        return register_hook(self._state, event, endpoint_ref, priority)


class Context:
    """The context of one session: fragments of JSON by key (protocol, section 8)."""

    __slots__ = ("_state",)

    def __init__(self, state: SessionState) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<Context of {self._state.session_id}: {len(self._state.fragments)} fragments>"

    async def get(self) -> dict[str, Any]:
        """Give ``{"fragments": {key: value}}``, in the order in which the keys were first set."""
        return get_fragments(self._state)

    async def set_fragment(self, key: str, value: Any) -> dict[str, Any]:
        """Set one fragment, for this session and its later forks. Return ``{}``.

        Raises ``BadRequest`` if ``value`` is not JSON or larger than the kernel's ``fragment_bytes``.
        """
        return set_fragment(self._state, key, value)
