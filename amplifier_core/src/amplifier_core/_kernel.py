"""The kernel: makes the parts of one kernel, and closes everything at its end.

Owns opening and closing. Two kernels in one process share nothing.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from ._events.bus import Bus
from ._modules.deadline import Deadlines, seconds_of
from ._modules.host import KernelHost
from ._modules.plugins import Plugins
from ._protocol.errors import BadRequest, Internal, KernelError, short
from ._protocol.event import DATA_LIMIT, SizeLimit
from ._protocol.ids import Ids
from ._session import Sessions
from ._sessions.registry import Registry, end_session
from ._sessions.runtime import Runtime, Settings
from .hookspecs import SINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from ._protocol.ids import Clock
    from ._sessions.state import SessionState
    from .hookspecs import Sink

_DISTRIBUTION = "amplifier"


class Kernel:
    """A kernel, on the event loop on which it is entered: ``async with Kernel(event_log="run.jsonl") as kernel``.

    ``event_log``: the JSONL log's path; ``None`` for a file of its own where platformdirs says; ``False`` for none.
    ``sinks``: more sinks: objects with ``write`` and ``close``, or ``{"type": name, …}`` for a plugin.
    ``isolation``: what confines the modules that run on this host: the name of a plugin, or ``{"type": name, …}``;
    ``None`` for the first installed one that passes its trial here; ``False`` for none.
    ``event_log_bytes``: size at which the log goes on in a new file; the old ones are kept as ``PATH.1``, ``PATH.2`` …
    ``event_limit``: bytes of JSON above which a value in an event's ``data`` is left out; ``None`` keeps everything.
    ``event_sha256``: have the SHA-256 of what is left out beside its size.
    ``timeout``: seconds for an invocation or a mount whose caller and descriptor name none.
    ``policy_timeout``: seconds for a policy hook's answer; a person who is asked needs more.
    ``observer_queue``: events that may wait for one observer. ``fragment_bytes``: JSON of the largest fragment.
    ``clock`` and ``entropy``: where time and randomness come from; fixed ones make two runs alike to the byte.
    """

    def __init__(  # noqa: PLR0913 - what an embedder may choose
        self,
        *,
        event_log: str | Path | Literal[False] | None = None,
        event_log_bytes: int | None = None,
        sinks: Sequence[Sink | Mapping[str, Any]] = (),
        isolation: str | Mapping[str, Any] | Literal[False] | None = None,
        event_limit: int | None = DATA_LIMIT,
        event_sha256: bool = False,
        timeout: float = 30.0,
        policy_timeout: float = 5.0,
        observer_queue: int = 1024,
        fragment_bytes: int = 1024 * 1024,
        clock: Clock = time,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        for name, number in (("observer_queue", observer_queue), ("fragment_bytes", fragment_bytes)):
            _check_count(name, number)
        for name, limit in (("event_limit", event_limit), ("event_log_bytes", event_log_bytes)):
            if limit is not None:
                _check_count(name, limit)
        self._event_log = event_log
        self._event_log_bytes = event_log_bytes
        self._sinks = sinks
        self._plugins = Plugins()
        self._host = KernelHost(self._plugins, isolation)
        self._limit = SizeLimit(math.inf if event_limit is None else event_limit, event_sha256)
        self._settings = Settings(seconds_of(timeout, 0), seconds_of(policy_timeout, 0), observer_queue, fragment_bytes)
        self._clock = clock
        self._ids = Ids(entropy)
        self._runtime: Runtime | None = None
        self._states: dict[str, SessionState] = {}
        self._registry = Registry(self._running, self._states)
        self._closed = False
        self.log_path: Path | None = None
        """Where the JSONL log is, once the kernel is open; ``None`` if there is none."""

    @property
    def session(self) -> Sessions:
        """The system calls ``session.create``, ``session.fork`` and ``session.end``."""
        return Sessions(self._registry)

    async def __aenter__(self) -> Self:
        if self._runtime is not None or self._closed:
            raise BadRequest("a kernel is opened once; make another one")
        from ._syscalls.table import SystemCalls  # noqa: PLC0415 - a kernel that is imported is not open yet

        sinks = self._open_sinks(self._plugins)
        bus = Bus(self._clock, self._ids, sinks, self._limit)
        deadlines = Deadlines(asyncio.get_running_loop())
        calls = SystemCalls(self._registry)
        parts = (self._clock, self._ids, bus, deadlines, self._plugins, self._host, self._settings, calls)
        self._runtime = Runtime(*parts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except KernelError as failure:
            if error is None:
                raise
            error.add_note(f"closing the kernel: {failure}")

    async def describe_host(self) -> dict[str, Any]:
        """Say what this host can enforce, found by trying.

        ``isolation`` is the one in use and what it enforces, or ``None``; ``unusable`` says of others why they are not;
        ``transports`` is what those that were named so far can do here, such as keeping budgets.
        """
        return await self._running().host.describe()

    async def close(self) -> None:
        """End every session and close every module, observer and sink. Idempotent.

        Nothing of the kernel runs when this returns. Raises ``Internal`` at last if a sink lost events on the way.
        """
        if self._runtime is None or self._closed:
            self._closed = True
            return
        self._runtime.deadlines.check_loop()
        self._closed = True
        runtime = self._runtime
        closing = runtime.deadlines.loop.create_task(self._close(runtime), name="close kernel")
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():  # that is bounded, and a caller who is cancelled meanwhile is cancelled afterwards
            try:
                await asyncio.wait((closing,))
            except asyncio.CancelledError as error:
                cancelled = error
        failures = closing.result()
        if cancelled is not None:
            raise cancelled
        if lost := runtime.bus.lost():
            raise Internal(
                f"the kernel's sinks did not take {lost} events; sink:error says why", details={"lost": lost}
            )
        if failures:
            raise Internal(f"closing the kernel: {'; '.join(failures)}", details={"causes": failures})

    async def _close(self, runtime: Runtime) -> list[str]:
        await asyncio.gather(*(end_session(state, "closed") for state in self._states.values()))
        self._states.clear()
        await runtime.drain()
        await runtime.host.close()
        runtime.deadlines.close()
        return runtime.bus.close()

    def _open_sinks(self, plugins: Plugins) -> list[Sink]:
        sinks: list[Sink] = []
        try:
            if self._event_log is not False:
                from ._events.jsonl import JsonlSink  # noqa: PLC0415 - not every kernel has a log

                path = self._log_file() if self._event_log is None else self._event_log
                log = JsonlSink(path, self._event_log_bytes)
                self.log_path = log.path
                sinks.append(log)
            for sink in _listed(self._sinks):
                sinks.append(self._open_sink(plugins, sink))  # noqa: PERF401 - what is open when one fails is closed
        except BaseException:
            for sink in sinks:
                sink.close()
            raise
        return sinks

    def _log_file(self) -> Path:
        """Name a file of this kernel's own below the user's state folder."""
        from platformdirs import user_state_path  # noqa: PLC0415 - only this case needs it

        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock.time()))
        return user_state_path(_DISTRIBUTION) / "events" / f"{stamp}-{self._ids.hex16()[:8]}.jsonl"

    def _open_sink(self, plugins: Plugins, sink: Sink | Mapping[str, Any]) -> Sink:
        if not isinstance(sink, Mapping):
            if not _is_sink(sink):
                raise BadRequest(f"sinks: expected a sink or an object whose type is text, got {sink!r}")
            return sink
        name = sink.get("type")
        if not isinstance(name, str):
            raise BadRequest(f"sinks: expected a sink or an object whose type is text, got {sink!r}")
        options = {key: value for key, value in sink.items() if key != "type"}
        opened: Sink = plugins.open(SINKS, name, options=options)
        return opened

    def _running(self) -> Runtime:
        """Give the kernel's parts. Raises ``BadRequest`` before it is entered and after it is closed."""
        if self._closed:
            raise BadRequest("the kernel is closed")
        if self._runtime is None:
            raise BadRequest("the kernel is not open yet: use it in `async with`")
        self._runtime.deadlines.check_loop()
        return self._runtime


def _check_count(name: str, number: object) -> None:
    if type(number) is not int or number <= 0:
        raise BadRequest(f"{name}: expected a positive integer, got {short(number)}")


def _listed(sinks: object) -> Sequence[Sink | Mapping[str, Any]]:
    if not isinstance(sinks, list | tuple):
        raise BadRequest(f"sinks: expected a list, got {type(sinks).__name__}")
    return sinks


def _is_sink(thing: object) -> bool:
    return hasattr(thing, "write") and hasattr(thing, "close")
