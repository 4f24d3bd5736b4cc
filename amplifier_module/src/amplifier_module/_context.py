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
    ) -> Any:
        """Invoke an operation of another module, and give its result.

        ``timeout`` is in seconds. With ``stream`` the chunks of the other module go on to the caller of this one.
        """
        told: dict[str, Any] = {"path": path, "op": op, "args": args or {}}
        if timeout is not None:
            told["timeout_ms"] = max(1, round(timeout * 1000))
        return await self.call("invoke", {**told, "stream": True} if stream else told)

    async def emit(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Emit an event at once."""
        await self.call("emit", {"event": event, "data": data or {}})

    async def mounts(self, path: str | None = None) -> list[dict[str, Any]]:
        """List what is mounted in the session, or at one path."""
        return list(await self.call("mounts", {"path": path} if path else {}))

    async def describe(self, path: str) -> dict[str, Any]:
        """Give the description of a mounted module, with the schemas of its operations."""
        return dict(await self.call("describe", {"path": path}))

    async def mount(self, path: str, descriptor: Mapping[str, Any]) -> str:
        """Mount a module, and give its full path."""
        return str((await self.call("mount", {"path": path, "descriptor": descriptor}))["path"])

    async def unmount(self, path: str, name: str | None = None) -> list[str]:
        """Unmount a module, or all at a path; give the paths of what was removed."""
        return list((await self.call("unmount", {"path": path, "name": name} if name else {"path": path}))["removed"])

    async def register_hook(self, event: str, endpoint_ref: str, priority: int = 0) -> None:
        """Let a mounted module, by its path, get the events of a name or pattern. The lowest priority comes first."""
        await self.call("register_hook", {"event": event, "endpoint_ref": endpoint_ref, "priority": priority})

    async def get_fragments(self) -> dict[str, Any]:
        """Give the session's context: all fragments by their keys."""
        return dict((await self.call("context.get"))["fragments"])

    async def set_fragment(self, key: str, value: Any) -> None:
        """Set one fragment of the session's context."""
        await self.call("context.set_fragment", {"key": key, "value": value})

    async def create_session(self, goal: str, inputs: Mapping[str, Any] | None = None) -> str:
        """Create a session, and give its id."""
        plan = {"goal": goal, "inputs": inputs or {}}
        return str((await self.call("session.create", {"plan": plan}))["session_id"])

    async def fork_session(self, parent_id: str) -> str:
        """Fork a session, and give the id of the fork."""
        return str((await self.call("session.fork", {"parent_id": parent_id}))["session_id"])

    async def end_session(self, session_id: str, status: str | None = None) -> None:
        """End a session that this module created or forked."""
        told = {"session_id": session_id}
        await self.call("session.end", {**told, "status": status} if status else told)
