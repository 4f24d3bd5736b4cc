"""What the embedder did in a run, done again: sessions, mounts, hooks, context, calls and events.

Owns which act an event of the log tells of. `_replay` decides when it is due.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import KernelError, ModuleDescriptor, Session

from ._spans import RecordedIds, Wanted, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amplifier_core import Kernel

    from ._hooks import Hooks
    from ._log import Entry, Log
    from ._real import Real

_LONG = 1e6  # seconds: no deadline of a run passes in its replay, unless the log says so
STARTS = ("policy:request", "module:wait", "module:pre_invoke", "module:invoke")
"""The events by which an invocation is heard of first."""


class Embedder:
    """The embedder of a run, played from the log."""

    def __init__(self, kernel: Kernel, log: Log, ids: RecordedIds, hooks: Hooks, real: Real) -> None:
        self._kernel = kernel
        self._log = log
        self._ids = ids
        self._hooks = hooks
        self._real = real
        self.sessions: dict[str, Session] = {}
        """Those that have not ended, by id."""
        self._contexts: dict[str, Context] = {}  # of the embedder's own spans
        self.calls: dict[str, tuple[Entry, asyncio.Task[Any]]] = {}
        """By span, the calls and mounts whose ends the log has not told, each with the first event that tells of it."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._describing: asyncio.Task[Any] | None = None
        self._outside = copy_context()
        self._faults: list[BaseException] = []
        self._by_event: dict[str, Callable[[Entry], None]] = {
            "session:start": self._start,
            "session:fork": self._fork,
            "session:end": self._end,
            "context:get": self._get,
            "context:set": self._set,
            "hook:register": self._register,
            "mount:remove": self._unmount,
        }
        self.events = (*self._by_event, *STARTS, "mount:pre_add")

    def act(self, entry: Entry) -> bool:
        """Do again what an event tells of. False: the embedder does nothing that becomes such an event."""
        if entry.event in STARTS or entry.event == "mount:pre_add":
            return self._begin(entry)
        do = self._by_event.get(entry.event)
        if do is None:
            return False
        do(entry)
        return True

    def emit(self, entry: Entry) -> None:
        """Emit an event of the embedder's again."""
        context = self._context(entry.span_id, entry)
        context.run(self._session(entry).emit, entry.event, entry.read())

    def end_span(self, span_id: str) -> None:
        """Forget a span of the embedder's own."""
        self._contexts.pop(span_id, None)

    def end_session(self, session_id: str) -> None:
        """Forget a session."""
        self.sessions.pop(session_id, None)

    def end_call(self, span_id: str) -> None:
        """Forget a call or a mount."""
        self.calls.pop(span_id, None)

    def cancel(self, span_id: str) -> bool:
        """Give up a call. False: the embedder made none with this span."""
        call = self.calls.get(span_id)
        return call is not None and call[1].cancel()

    def describe(self, entry: Entry) -> bool:
        """Ask a module that has changed what it is now. False: it is asked already."""
        task = self._describing
        is_asked = task is not None and not task.done()
        work = self._session(entry).describe
        self._describing = task if is_asked else self._spawn(work(entry.module or ""), self._outside)
        return False

    def check(self) -> None:
        """Raise what failed that cannot fail: a fault of the replay's own."""
        if self._faults:
            raise self._faults[0]

    async def finish(self, *, give_up: bool) -> None:
        """Wait for what was begun, or give it up."""
        for task in self._tasks if give_up else ():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if not give_up:
            self.check()

    def _begin(self, entry: Entry) -> bool:
        """Begin a mount or a call, with the ids that it had."""
        data, header = entry.read(), None
        if entry.event == "mount:pre_add":
            work = self._mount(entry, data)
        elif isinstance(data.get("args"), dict) and data.get("op") and entry.module:
            header = self._header(entry) if entry.parent_span_id else None
            work = self._call(entry, data, header)
        else:
            return False
        context = self._context(None if header else entry.parent_span_id, entry)
        context.run(wanted.set, Wanted(entry.request_id or "", entry.span_id or ""))
        self.calls[entry.span_id or ""] = entry, self._spawn(work, context)
        return True

    async def _mount(self, entry: Entry, data: dict[str, Any]) -> None:
        told = dict(data["descriptor"])
        descriptor = ModuleDescriptor.from_mapping(told, base=Path(told.pop("base")))
        path, trusted = entry.module or "", data["trusted"]
        if path in self._real:
            descriptor, trusted = self._real.descriptor(path, descriptor), self._real.trusted
        await self._session(entry).mount(path.rpartition("/")[0], descriptor, trusted=trusted, timeout=_LONG)

    async def _call(self, entry: Entry, data: dict[str, Any], header: str | None) -> Any:
        session, path = self._session(entry), entry.module or ""
        stream = session.stream(path, data["op"], data["args"], timeout=_LONG, traceparent=header)
        try:
            return await stream.result()
        except KernelError as error:
            if entry.parent_span_id in self._hooks.questions:
                self._hooks.raised[entry.parent_span_id] = error
            raise

    def _context(self, span_id: str | None, entry: Entry) -> Context:
        """Give a context in which the caller's code ran: in no span, in one of its own, or in a hook that is asked."""
        if span_id is None:
            return self._outside.run(copy_context)
        questions = self._hooks.questions.get(span_id)
        if questions:
            return questions[-1].context.copy()
        above = entry.parent_span_id if span_id == entry.span_id else None
        context = self._contexts.get(span_id)
        if context is None or (above and not _is_below(context, above)):
            context = self._contexts[span_id] = self._outside.copy()
            context.run(wanted.set, Wanted(entry.request_id or "", span_id, above))
            any_session = self.sessions.get(entry.session_id or "") or next(iter(self.sessions.values()))
            context.run(any_session.span("recorded").__enter__)
        return context.copy()

    def _header(self, entry: Entry) -> str | None:
        """Give the ``traceparent`` of a call that continues the trace of a caller outside of the kernel."""
        told: Entry | None = entry
        if entry.event == "policy:request":
            told = self._log.find(lambda each: each.span_id == entry.span_id and each.event in STARTS[1:])
        return told.read().get("traceparent") if told else None

    def _session(self, entry: Entry) -> Session:
        return self.sessions[entry.session_id or ""]

    def _run(self, work: Coroutine[Any, Any, Any], context: Context) -> None:
        _ = self._spawn(work, context)

    def _spawn(self, work: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, KernelError):
            self._faults.append(error)

    def _make(self, entry: Entry, make: Callable[[], Coroutine[Any, Any, Session]]) -> None:
        """Make a session with the id that it had. Its making waits for nothing."""
        self._ids.session_id = entry.session_id

        async def making() -> None:
            self.sessions[entry.session_id or ""] = await make()

        self._run(making(), self._context(entry.span_id, entry))

    def _start(self, entry: Entry) -> None:
        told = entry.read()
        plan = {**told["plan"], **dict.fromkeys(told.get("unknown", ()))}
        self._make(entry, lambda: self._kernel.session.create(plan))

    def _fork(self, entry: Entry) -> None:
        parent_id = entry.read()["parent_id"]
        self._make(entry, lambda: self._kernel.session.fork(parent_id))

    def _end(self, entry: Entry) -> None:
        if entry.status == "closed":
            self._run(self._kernel.close(), self._outside)
        else:
            self._do(entry, self._kernel.session.end(entry.session_id or "", entry.status or ""))

    def _get(self, entry: Entry) -> None:
        self._do(entry, self._session(entry).context.get())

    def _set(self, entry: Entry) -> None:
        data = entry.read()
        self._do(entry, self._session(entry).context.set_fragment(data["key"], data["value"]))

    def _register(self, entry: Entry) -> None:
        data = entry.read()
        event, name = data["event"], data["endpoint_ref"]
        endpoint = name if name.startswith("/mnt/") else self._hook(event, name)
        self._do(entry, self._session(entry).register_hook(event, endpoint, priority=data["priority"]))

    def _hook(self, event: str, name: str) -> Any:
        return self._hooks.policy(name) if event == "policy:request" else self._hooks.observer(name)

    def _unmount(self, entry: Entry) -> None:
        place, _, name = (entry.module or "").rpartition("/")
        self._do(entry, self._session(entry).unmount(place, name))

    def _do(self, entry: Entry, work: Coroutine[Any, Any, Any]) -> None:
        self._run(work, self._context(entry.span_id, entry))


def _is_below(context: Context, span_id: str) -> bool:
    """Tell whether the embedder's span of a context is known to be below another one."""
    told = context[wanted]
    return told is not None and told.parent_span_id == span_id
