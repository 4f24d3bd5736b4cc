"""The kernel: makes its parts when it is entered, and closes them at its end.

Owns the embedder's choices, the opening and the closing. It carries out no system call. Two kernels share nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from ._events.bus import CLOSED, NOT_AWAITED, Bus
from ._events.inbox import Inbox
from ._modules.deadline import Deadlines, running_loop, seconds_of
from ._protocol.description import PROTOCOL
from ._protocol.errors import BadRequest, Internal, KernelError, short
from ._protocol.event import DATA_LIMIT, SizeLimit
from ._protocol.ids import Ids, ms_since
from ._session import Sessions
from ._sessions.registry import Registry, end_session
from ._sessions.runtime import Runtime, Settings
from .hookspecs import SINKS, watch_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from ._events.redaction import Redaction
    from ._protocol.ids import Clock
    from ._sessions.state import SessionState
    from .hookspecs import Connection, Isolation, Sink


VERSION: str = "0.1.0"
"""The version of the distribution. To ask for that of the installed one takes 20 ms, and it may be another one."""


class Kernel:
    """A kernel, on the event loop on which it is entered: ``async with Kernel(event_log="run.jsonl") as kernel``.

    ``event_log``: path of the log (section 7). ``None``: a new file in the user's state folder. ``False``: no log.
    ``sinks``: further sinks: objects with ``write`` and ``close``, or ``{"type": name, …}`` for a plugin.
    ``isolation``: confines the modules on this host (section 6): the name of a plugin, ``{"type": name, …}``, or an
    object. ``None``: the one that is installed; of several, one has to be named. ``False``: no isolation.
    ``isolations``: others, each in one of these ways, by the names that ``mount(…, isolation=…)`` gives.
    ``event_log_bytes``: file size at which the log continues in a new file; old ones become ``PATH.1``, ``PATH.2`` …
    ``event_limit``: a value of more bytes of JSON is left out of an event's ``data``. ``None``: no limit.
    ``event_sha256``: an event has the SHA-256 of a value that is left out, beside its size.
    ``event_starts``: a call has the event ``module:pre_invoke`` when it is sent to its module, so that the log of a
    kernel that was killed shows what was in flight.
    ``redact``: what no log and no observer may see (section 7): a list of JSON paths, such as ``$..password``, or a
    function. It gets each event as a dict, and has to return it, perhaps with other ``data`` and ``error``. It runs on
    the event loop, which it holds, and must not call the kernel. If it fails, the event has neither.
    ``timeout``: seconds for an invocation or a mount, if neither caller nor descriptor gives a time.
    ``policy_timeout``: seconds for the answer of a policy hook. A hook that asks a person needs more.
    ``observer_queue``: events that may wait for one observer. ``fragment_bytes``: bytes of JSON of one fragment.
    ``recording``: the log is complete, so that the run can be done again (section 7): no value is left out.
    ``open_transport``: opens connections, with the arguments of that hook, in the place of the transport plugins. The
    plugin opens the one that it gives ``None`` for.
    ``clock``, ``entropy``: sources of time and randomness. With fixed ones, two equal runs write equal logs, but
    for the ``pid`` in ``kernel:start``: that of each process is another one. ``ids``: draws each id, in their place.

    Raises ``BadRequest`` for an argument that does not fit.
    """

    def __init__(  # noqa: PLR0913 - the embedder's choices, each by its name
        self,
        *,
        event_log: str | Path | Literal[False] | None = None,
        event_log_bytes: int | None = None,
        sinks: Sequence[Sink | Mapping[str, Any]] = (),
        isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None,
        isolations: Mapping[str, str | Mapping[str, Any] | Isolation] | None = None,
        event_limit: int | None = DATA_LIMIT,
        event_sha256: bool = False,
        event_starts: bool = False,
        redact: Callable[[dict[str, Any]], dict[str, Any]] | Sequence[str] | None = None,
        timeout: float = 30.0,
        policy_timeout: float = 5.0,
        observer_queue: int = 1024,
        fragment_bytes: int = 1024 * 1024,
        recording: bool = False,
        open_transport: Callable[..., Connection | None] | None = None,
        clock: Clock = time,
        entropy: Callable[[int], bytes] = os.urandom,
        ids: Ids | None = None,
    ) -> None:
        _check_count("observer_queue", observer_queue)
        _check_count("fragment_bytes", fragment_bytes)
        _check_count("event_limit", event_limit, optional=True)
        _check_count("event_log_bytes", event_log_bytes, optional=True)
        _check_choice("event_starts", event_starts)
        _check_choice("recording", recording)
        if recording and redact is not None:
            raise BadRequest("recording: a log without the values that redact takes out cannot be done again")
        self._redaction = None if redact is None else _redaction(redact, digests=event_sha256)
        self._event_log = event_log
        self._event_log_bytes = event_log_bytes
        self._sinks = sinks
        from ._modules.host import KernelHost  # noqa: PLC0415 - as for `SystemCalls` below
        from ._modules.plugins import Plugins  # noqa: PLC0415

        self._plugins = Plugins(open_transport)
        self._host = KernelHost(self._plugins, isolation, isolations)
        self._limit = SizeLimit(math.inf if event_limit is None or recording else event_limit, event_sha256)
        times = seconds_of(timeout, 0), seconds_of(policy_timeout, 0)
        self._settings = Settings(*times, observer_queue, fragment_bytes, event_starts or recording, recording)
        self._clock = clock
        self._ids = Ids(entropy, in_order=recording) if ids is None else ids
        self._runtime: Runtime | None = None
        self._states: dict[str, SessionState] = {}
        self._registry = Registry(self._open_runtime, self._states)
        self._closed = ""  # or why
        self._status = "ok"  # of its end
        self._began = 0.0
        self._closing: asyncio.Task[list[str]] | None = None
        self.log_path: Path | None = None
        """The path of the JSONL log while and after the kernel is open. ``None``: there is no log."""

    @property
    def session(self) -> Sessions:
        """The system calls ``session.create``, ``session.fork`` and ``session.end`` (section 8)."""
        return Sessions(self._registry)

    def __repr__(self) -> str:
        phase = "closed" if self._closed else f"{len(self._states)} sessions" if self._runtime else "not open yet"
        return f"<Kernel: {phase}, log {self.log_path}>"

    async def open(self) -> Self:
        """Open the kernel, as ``async with`` does, where that cannot be used: in a notebook. ``close`` ends it.

        Raises ``BadRequest`` if the log cannot be opened, or the kernel was open before.
        """
        return await self.__aenter__()

    async def __aenter__(self) -> Self:
        loop = running_loop()
        if self._runtime is not None or self._closed:
            raise BadRequest("a kernel can be opened once; make another one")
        from ._syscalls.table import SystemCalls  # noqa: PLC0415 - it keeps the import of the package short

        bus = Bus(self._clock, self._ids, self._open_sinks(), self._limit, self._redaction)
        calls = SystemCalls(self._registry)
        parts = (
            self._clock,
            self._ids,
            bus,
            Inbox(loop),
            Deadlines(loop),
            self._plugins,
            self._host,
            self._settings,
            calls,
        )
        self._runtime = Runtime(*parts)
        self._began = self._clock.monotonic()
        bus.begin(_describe(bus.tag, self._settings))
        for doubt in self._host.doubts():
            bus.warn(doubt, doubt)
        watch_forks(bus)
        watch_forks(self._runtime.deadlines)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._status = "error"
        try:
            await self.close()
        except KernelError as failure:
            if error is None:
                raise
            error.add_note(f"closing the kernel: {failure}")

    async def describe_host(self) -> dict[str, Any]:
        """Describe what can be enforced on this host (section 6), as found by a trial.

        ``platform``: Python's name of it. ``isolation``: the name of the isolation in use, and what it enforces, or
        ``None``. ``unusable``: by the name of each other isolation, why it cannot be used. ``transports``: by name,
        what each transport that was used so far can do here, such as measuring budgets.
        """
        return await self._open_runtime().host.describe()

    async def close(self) -> None:
        """End every session and close every module, observer and sink. Idempotent.

        Nothing of the kernel runs afterwards. In a process that was forked from the kernel's it does nothing, since the
        kernel lives on in the other one. Raises ``Internal`` if a sink lost events or failed to close.
        """
        runtime = self._runtime
        if runtime is None or runtime.deadlines.forked or (self._closing is not None and self._closing.done()):
            self._closed = self._closed or CLOSED
            return
        runtime.deadlines.check_loop()
        self._closed = CLOSED
        if self._closing is not None:  # by another task, which raises what there is to raise
            await asyncio.wait((self._closing,))
            return
        self._closing = runtime.deadlines.loop.create_task(self._close(runtime), name="close kernel")
        failures = await _finish(self._closing)
        if loss := runtime.bus.loss():
            error, cause = loss
            raise error from cause
        if failures:
            raise Internal(f"closing the kernel: {'; '.join(failures)}", details={"causes": failures})

    async def _close(self, runtime: Runtime) -> list[str]:
        await asyncio.gather(*(end_session(state, "closed") for state in self._states.values() if state.begin_end()))
        self._states.clear()
        await runtime.drain()
        await runtime.host.close()
        runtime.deadlines.close()
        runtime.inbox.close(CLOSED)
        runtime.bus.end(self._status, ms_since(self._clock, self._began))
        return runtime.bus.close()

    def _open_sinks(self) -> list[Sink]:
        """Open the log and the embedder's sinks. If one cannot be opened, those before it are closed."""
        sinks: list[Sink] = []
        with contextlib.ExitStack() as opened:
            for sink in self._each_sink():
                sinks.append(sink)
                opened.callback(_close, sink)
                _check_not_async(sink)
            opened.pop_all()
        return sinks

    def _each_sink(self) -> Iterator[Sink]:
        if self._event_log is not False:
            from ._events.jsonl import JsonlSink  # noqa: PLC0415 - not every kernel has a log

            path = self._log_file() if self._event_log is None else self._event_log
            log = JsonlSink(path, self._event_log_bytes)
            self.log_path = log.path
            yield log
        if not isinstance(self._sinks, list | tuple):
            raise BadRequest(f"sinks: expected a list, got {type(self._sinks).__name__}")
        yield from map(self._open_sink, self._sinks)

    def _log_file(self) -> Path:
        """Name a new log file in the user's state folder."""
        from platformdirs import user_state_path  # noqa: PLC0415 - only this case needs it

        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock.time()))
        return user_state_path("amplifier") / "events" / f"{stamp}-{self._ids.hex16()[:8]}.jsonl"

    def _open_sink(self, wanted: Sink | Mapping[str, Any]) -> Sink:
        if isinstance(wanted, Mapping) and isinstance(name := wanted.get("type"), str):
            options = {key: value for key, value in wanted.items() if key != "type"}
            opened: Sink = self._plugins.open(SINKS, name, options=options)
            return opened
        if isinstance(wanted, Mapping) or not (hasattr(wanted, "write") and hasattr(wanted, "close")):
            raise BadRequest(f"sinks: expected a sink or an object whose type is text, got {wanted!r}")
        return wanted

    def _open_runtime(self) -> Runtime:
        """Give the kernel's parts. Raises ``BadRequest`` unless the kernel is open."""
        if self._closed:
            raise BadRequest(self._closed)
        if self._runtime is None:
            raise BadRequest("the kernel is not open yet: use it in `async with`, or await its open()")
        self._runtime.deadlines.check_loop()
        return self._runtime


_RECORDED = ("timeout", "policy_timeout", "observer_queue", "fragment_bytes")  # settings that a replay needs


def _describe(tag: str, settings: Settings) -> dict[str, Any]:
    """Build the ``data`` of ``kernel:start`` (section 7)."""
    versions = {"amplifier-kernel": VERSION, "python": sys.version.partition(" ")[0]}
    told = {"kernel": tag, "pid": os.getpid(), "protocol": PROTOCOL, "versions": versions, "platform": sys.platform}
    if settings.recording:
        told["recording"] = {name: getattr(settings, name) for name in _RECORDED}
    return told


def _redaction(redact: Any, *, digests: bool) -> Redaction:
    if digests:
        raise BadRequest("event_sha256: expected False where redact is given: a digest would tell of what it takes out")
    from ._events.redaction import Redaction  # noqa: PLC0415 - few kernels have one

    return Redaction(redact)


async def _finish(closing: asyncio.Task[list[str]]) -> list[str]:
    """Wait for a task that ends in bounded time. A cancellation of the caller is raised after that."""
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.wait((closing,))
        except asyncio.CancelledError as error:
            cancelled = error
    failures = closing.result()
    if cancelled is not None:
        raise cancelled
    return failures


def _check_not_async(sink: Sink) -> None:
    """Raise ``BadRequest`` for a sink with an async method: nobody would await it."""
    for method in ("write", "close"):
        if inspect.iscoroutinefunction(getattr(sink, method)):
            raise BadRequest(f"sinks: {type(sink).__name__}.{method} {NOT_AWAITED}")


def _close(sink: Sink) -> None:
    if not inspect.iscoroutinefunction(sink.close):
        sink.close()


def _check_choice(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise BadRequest(f"{name}: expected True or False, got {short(value)}")


def _check_count(name: str, number: object, *, optional: bool = False) -> None:
    if not (optional and number is None) and (type(number) is not int or number <= 0):
        raise BadRequest(f"{name}: expected a positive integer, got {short(number)}")
