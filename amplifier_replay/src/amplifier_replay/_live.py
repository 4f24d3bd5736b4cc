"""How a run goes on: what the embedder gives for it, and its modules for real.

Owns the start of a module as it was mounted. What the log tells of it is known elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import BadRequest, Event, Forbidden, KernelError, ModuleDescriptor
from amplifier_core.testing import confine, open_connection

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from amplifier_core.hookspecs import Confinement, Connection, Host, Isolation, Notify

    from ._new_log import LaterSink

Hook = Callable[[Event], Awaitable[Any]]


@attrs.frozen(kw_only=True)
class Live:
    """What a run goes on with. Times are in seconds; ``None`` stands for that of the recording."""

    hooks: Mapping[str, Hook]
    descriptors: Mapping[str, ModuleDescriptor | None]
    trusted: bool
    isolation: Isolation | KernelError
    """What confines modules, or why nothing does."""
    isolations: Mapping[str, Isolation | KernelError]
    """What confines those that were confined by an isolation of that name."""
    sinks: Sequence[LaterSink]
    open_transport: Callable[..., Connection | None] | None
    timeout: float | None
    policy_timeout: float | None
    again: bool
    """Whether every call that was sent is sent again."""
    used: set[str] = attrs.field(factory=set)
    """The paths of the modules that the recorded run has mounted."""

    def times(self, recorded: Mapping[str, Any]) -> tuple[float, float]:
        """Give the time of a call, and that of the answer of a policy hook."""
        own = self.timeout or recorded["timeout"], self.policy_timeout or recorded["policy_timeout"]
        return float(own[0]), float(own[1])

    def descriptor(self, path: str, recorded: ModuleDescriptor) -> ModuleDescriptor:
        """Give the descriptor by which a module is started: the one that was named, or that of the recording."""
        self.used.add(path)
        return self.descriptors.get(path) or recorded

    def check(self, hooks: Container[str]) -> None:
        """Raise ``BadRequest`` for a descriptor or a hook of something that the run does not have.

        ``hooks`` are the names of those that it has registered.
        """
        for path in self.descriptors:
            if path not in self.used:
                raise BadRequest(f"{path}: the recorded run has mounted no module there")
        for name in self.hooks:
            if name not in hooks:
                raise BadRequest(f"{name}: the recorded run has registered no hook of that name")


class LiveModule:
    """One module as it was mounted, which can be started for real. Its connection is opened when it is needed first."""

    def __init__(
        self, live: Live, path: str, recorded: ModuleDescriptor, notify: Notify, host: Host, *, trusted: bool
    ) -> None:
        self._live = live
        self._descriptor = live.descriptor(path, recorded)
        self._notify = notify
        self._host = host
        self._trusted = trusted
        self._confinement: Confinement | None = None
        self.isolation: str | None = None
        """The name of the isolation that has confined it, once the log has told it."""
        self.has_time_limit: bool = self._descriptor.limits.timeout_ms is not None

    @functools.cached_property
    def connection(self) -> Connection:
        """The connection. Raises ``BadRequest`` for a descriptor that does not fit its transport."""
        return open_connection(self._descriptor, self._host, self._notify, self._live.open_transport)

    async def start(self, granted: Sequence[str]) -> Connection:
        """Start it with the granted capabilities. Raises ``Forbidden`` for one that was trusted and is not any more."""
        connection = self.connection
        isolation = self._live.isolations.get(self.isolation or "", self._live.isolation)
        here = connection.local and not connection.confined
        if here and self._trusted and not self._live.trusted:
            raise Forbidden("it ran as an ordinary process; trusted=True runs it so again")
        if here and not self._trusted:
            if isinstance(isolation, KernelError):
                raise Forbidden(isolation.message)
            wanted = attrs.evolve(self._descriptor, capabilities=tuple(granted))
            _, self._confinement = await confine(connection.launch(), wanted, isolation=isolation)
        if not connection.local and self._descriptor.caller is None:
            await connection.survey()
        await connection.start(granted, self._confinement)
        return connection

    async def close(self) -> None:
        """End it, and what its isolation has for it."""
        await self.connection.close()
        end = getattr(self._confinement, "end", None)
        if end is not None:
            await end()

    def may_repeat(self, op: str) -> bool:
        """Tell whether an operation may be asked for again, though it may have been done."""
        return self._live.again or bool(self._descriptor.ops.get(op, {}).get("idempotent"))
