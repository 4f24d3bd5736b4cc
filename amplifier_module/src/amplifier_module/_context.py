"""What an operation may know and do while it runs.

Owns the names that authors use. What stands behind them belongs to the run of the operation.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._messages import Invoke


class Invocation(Protocol):
    """What stands behind a context. ``deadline`` is on the monotonic clock."""

    params: Invoke
    deadline: float | None
    cancelled: bool

    def chunk(self, value: object) -> None:
        """Send a chunk."""

    async def drain(self) -> None:
        """Wait while chunks have not been taken."""

    def event(self, event: str, data: Mapping[str, Any]) -> None:
        """Add an event to the reply."""

    async def call(self, name: str, args: Mapping[str, Any]) -> Any:
        """Make a system call."""


class Context:
    """The invocation that an operation runs for. A parameter with this hint gets it; no caller sees that parameter.

    The methods that are awaited are system calls (section 8): the kernel makes them, if the module's capabilities have
    ``sys:NAME``. They need an operation that is ``async``. Those that run at the same time, as with
    ``asyncio.gather``, are asked for together. One that fails raises ``ModuleError`` with the kernel's code.

    ``session_id`` is the session in which a call is done: one that was created or forked in that of the invocation.
    Left out, it is that of the invocation.
    """

    def __init__(self, run: Invocation) -> None:
        self._run = run

    @property
    def session_id(self) -> str | None:
        """The session of the invocation."""
        return self._run.params.session_id

    @property
    def request_id(self) -> str | None:
        """The request that the invocation is part of."""
        return self._run.params.request_id

    @property
    def span_id(self) -> str | None:
        """The invocation itself, in the tree of its request."""
        return self._run.params.span_id

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline of the whole invocation, at least 0; ``None`` if there is none."""
        return None if self._run.deadline is None else max(0.0, self._run.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up. A plain function that takes long looks at this from time to time."""
        return self._run.cancelled

    def check(self) -> None:
        """Raise ``Cancelled`` if the caller has given up."""
        if self._run.cancelled:
            raise Cancelled

    def chunk(self, value: Any) -> None:
        """Send any JSON to the caller before the result. Raises ``Cancelled`` if the caller has given up.

        In a plain function it waits while the caller's side is full; in an ``async`` one ``drain`` does.
        """
        self._run.chunk(value)

    async def drain(self) -> None:
        """Let others run, and wait while chunks that were sent have not been taken."""
        await self._run.drain()

    def event(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Add an event to the reply; the kernel emits it in the module's name. At most 1000, others are left out.

        It takes no system call and no capability, unlike ``emit``.
        """
        self._run.event(event, data or {})

    async def call(self, name: str, args: Mapping[str, Any] | None = None) -> Any:
        """Make a system call by its name, and give its result. Raises ``ModuleError``."""
        return await self._run.call(name, args or {})

    async def invoke(
        self,
        path: str,
        op: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        stream: bool = False,
        session_id: str | None = None,
    ) -> Any:
        """Invoke an operation of another module, and give its result.

        ``timeout`` is in seconds. With ``stream`` the chunks of the other module go on to the caller of this one.
        """
        timeout_ms = None if timeout is None else max(1, round(timeout * 1000))
        told = {"path": path, "op": op, "args": args or {}}
        told = _told(told, timeout_ms=timeout_ms, stream=stream or None, session_id=session_id)
        return await self.call("invoke", told)

    async def emit(self, event: str, data: Mapping[str, Any] | None = None, *, session_id: str | None = None) -> None:
        """Emit an event at once."""
        await self.call("emit", _told({"event": event, "data": data or {}}, session_id=session_id))

    async def mounts(self, path: str | None = None, *, session_id: str | None = None) -> list[dict[str, Any]]:
        """List what is mounted in the session, or at one path."""
        return list(await self.call("mounts", _told({}, path=path, session_id=session_id)))

    async def describe(self, path: str, *, session_id: str | None = None) -> dict[str, Any]:
        """Give the description of a mounted module, with the schemas of its operations."""
        return dict(await self.call("describe", _told({"path": path}, session_id=session_id)))

    async def mount(self, path: str, descriptor: Mapping[str, Any], *, session_id: str | None = None) -> str:
        """Mount a module, and give its full path."""
        told = _told({"path": path, "descriptor": descriptor}, session_id=session_id)
        return str((await self.call("mount", told))["path"])

    async def unmount(self, path: str, name: str | None = None, *, session_id: str | None = None) -> list[str]:
        """Unmount a module, or all at a path; give the paths of what was removed."""
        return list((await self.call("unmount", _told({"path": path}, name=name, session_id=session_id)))["removed"])

    async def register_hook(
        self, event: str, endpoint_ref: str, priority: int = 0, *, session_id: str | None = None
    ) -> None:
        """Let a mounted module, by its path, get the events of a name or pattern. The lowest priority comes first."""
        told = {"event": event, "endpoint_ref": endpoint_ref, "priority": priority}
        await self.call("register_hook", _told(told, session_id=session_id))

    async def get_fragments(self, *, session_id: str | None = None) -> dict[str, Any]:
        """Give the session's context: all fragments by their keys."""
        return dict((await self.call("context.get", _told({}, session_id=session_id)))["fragments"])

    async def set_fragment(self, key: str, value: Any, *, session_id: str | None = None) -> None:
        """Set one fragment of the session's context."""
        await self.call("context.set_fragment", _told({"key": key, "value": value}, session_id=session_id))

    async def create_session(self, goal: str, inputs: Mapping[str, Any] | None = None) -> str:
        """Create a session, and give its id."""
        plan = {"goal": goal, "inputs": inputs or {}}
        return str((await self.call("session.create", {"plan": plan}))["session_id"])

    async def fork_session(self, parent_id: str) -> str:
        """Fork a session, and give the id of the fork."""
        return str((await self.call("session.fork", {"parent_id": parent_id}))["session_id"])

    async def end_session(self, session_id: str, status: str | None = None) -> None:
        """End a session that this module created or forked."""
        await self.call("session.end", _told({"session_id": session_id}, status=status))


def _told(args: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Add to the arguments of a call those that may be left out, but ``None``."""
    return args | {name: value for name, value in optional.items() if value is not None}
