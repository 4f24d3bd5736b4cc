"""A kernel for a program of the embedder's own, whose modules answer from a log. No module and no network is needed.

Owns the answers to what the program asks. What is the same call is decided in `_calls`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core import Kernel
from amplifier_core.hookspecs import Connection, Ids, Message

from ._answers import reply_of, size_of
from ._calls import Call, Calls, is_act
from ._differences import Difference
from ._isolation import RecordedIsolation, launch_at
from ._log import Entry, check_whole, lines
from ._meaning import Meaning
from ._module import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Confinement, Host, Launch, Notify, Span

_decode = msgspec.json.Decoder(Entry).decode


@asynccontextmanager
async def replaying(path: Path | str) -> AsyncGenerator[Kernel, None]:
    """Give a program a kernel whose modules answer as they did in a recorded run. A context manager.

    The program runs its own code: it makes sessions, registers hooks, mounts modules and calls them. Nothing of a
    module runs; descriptors need not fit this host. A call is answered by the recorded one of that module with that
    ``op`` and those ``args``, whenever it is made. Ids and times in them are held against the recorded ones by their
    meaning.

    The first call that the run does not have raises ``Difference``, and so does the end of the block if the program has
    left out a call, or has done something else to sessions, mounts, hooks, context or events. Raises ``UnusableLog`` as
    ``replay`` does. The log is in memory meanwhile.
    """
    path = Path(path)
    check_whole(path)
    run = _Run(path)
    try:
        async with run.kernel:
            yield run.kernel
            run.check_end()
    except Exception as error:
        if run.difference is not None and error is not run.difference:
            raise run.difference from error
        raise


class _Params(msgspec.Struct):
    op: str = ""
    args: Any = None
    span_id: str | None = None


class _Run:
    """One program on its kernel. It is the kernel's sink."""

    def __init__(self, path: Path) -> None:
        self.difference: Difference | None = None
        """The first one."""
        self.calls = Calls(path, Meaning())
        self.isolation = RecordedIsolation()
        self.asked: dict[str, tuple[Call, int]] = {}
        """By the span of a call that is made now the recorded one, and how much of it was answered."""
        self.ids = _Ids(self)
        self._done: list[Entry] = []
        self._mounting: Entry
        first = next(iter(lines(path))).entry
        settings = first.read()["recording"]
        self.kernel = Kernel(
            event_log=False,
            sinks=[self],
            isolation=self.isolation,
            recording=True,
            timeout=settings["timeout"],
            policy_timeout=settings["policy_timeout"],
            observer_queue=settings["observer_queue"],
            fragment_bytes=settings["fragment_bytes"],
            ids=self.ids,
            open_transport=self._open,
        )

    def write(self, line: bytes) -> None:
        """Note what the program does."""
        entry = _decode(line)
        if is_act(entry):
            self._done.append(entry)
        elif entry.event == "mount:pre_add":
            self._mounting = entry
        elif entry.event == "module:invoke":
            self.asked.pop(entry.span_id or "", None)
            self.ids.above.pop(entry.span_id or "", None)

    def close(self) -> None:
        """Nothing is to be closed."""

    def check_end(self) -> None:
        """Raise the first difference."""
        if self.difference is not None:
            raise self.difference
        self.calls.check_end(self._done)

    def answer(self, path: str, params: _Params) -> tuple[Call, int]:
        """Find the recorded call that is made now, or goes on after its system calls. Count what was answered."""
        if self.difference is not None:
            raise self.difference
        span_id = params.span_id or ""
        if span_id not in self.asked:
            above = self.asked.get(self.ids.above.get(span_id, ""), (None, 0))[0]
            self.asked[span_id] = self._find(path, params, above), 0
        return self.asked[span_id]

    def _find(self, path: str, params: _Params, above: Call | None) -> Call:
        try:
            return self.calls.find(path, params.op, params.args, above)
        except Difference as error:
            if above is not None and above.was_given_up():
                return Call(above.sent, [], above.ended)
            error.replied = True  # its text is final
            self.difference = error
            raise

    def _open(self, descriptor: ModuleDescriptor, notify: Notify, host: Host) -> Connection:
        begun = self._mounting
        added = self.calls.mount(begun.module or "")
        if added is None:
            self.difference = Difference(self.calls.last, "no other mount", f"one of {begun.module}")
            raise self.difference
        if added.status == "error" and "connection" not in added.read():
            raise failure_of(added.read_error())
        place = begun.span_id or "", begun.module or ""
        told = added.read()["connection"]
        self.isolation.failure = added.read_error().get("message", "")
        if told["isolation"]:
            asked = self.calls.shown.get(added.span_id or "", added).read()
            shown = dict(asked.get("args", {}).get("isolation", {}))
            shown.pop("name", None)
            unenforced = [*added.read().get("unenforced", ()), *asked.get("unenforced", ())]
            self.isolation.learn(place, told["isolation"], unenforced, shown)
        return _Answering(self, place, added)


class _Ids(Ids):
    """Knows which span is below which, and gives sessions the ids that they had: modules have them in their state."""

    __slots__ = ("_run", "above")

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run
        self.above: dict[str, str] = {}

    def child(self, parent: Span) -> Span:
        """Begin an operation below another one."""
        span = super().child(parent)
        self.above[span.span_id] = parent.span_id
        return span

    def session(self, span: Span | None) -> str:
        """Give the id of the next session that was made by the same call, or by the program."""
        maker = self._run.asked.get(span.span_id if span else "", (None, 0))[0]
        return self._run.calls.session(maker) or super().session(span)


class _Answering(Connection):
    """A module that says what it said in the run, whenever it is asked."""

    unenforced: tuple[str, ...] = ()

    def __init__(self, run: _Run, place: tuple[str, str], added: Entry) -> None:
        self._run = run
        self._place = place
        self._added = added
        told = added.read()["connection"]
        self.local = told["local"]
        self.confined = told["confined"]
        self.unenforced = tuple(told["unenforced"])
        self.endpoints = told["endpoints"]

    def launch(self) -> Launch:
        """Give a program that is never started."""
        return launch_at(self._place)

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Begin to answer, or fail as the mount did."""
        if self._added.status == "error":
            raise failure_of(self._added.read_error())

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Answer as the module did."""
        if method == "health":
            return Message(ok=True, result={"status": "ok"})
        if method == "describe":
            return Message(ok=True, result=self._added.read()["description"])
        told = _read_params(params)
        if told.span_id is None:  # an observer is told of an event
            return Message(ok=True, result=None)
        call, done = self._run.answer(self._place[1], told)
        for turn in call.turns[done:]:
            done += 1
            if turn.event == "module:reply":
                self._run.asked[told.span_id] = call, done
                return reply_of(turn)
            if chunks is not None:
                chunks.put(turn.read()["chunk"], size_of(turn))
        return await _ended(call)

    async def close(self) -> None:
        """Nothing is to be closed."""


async def _ended(call: Call) -> Message:
    """Give the end of a call. One that was given up ends when it is given up again."""
    assert call.ended is not None  # noqa: S101 - the log is whole
    if call.ended.status == "ok":
        return Message(ok=True, result=call.ended.read().get("result"), size=size_of(call.ended))
    if call.was_given_up():
        await asyncio.Event().wait()
    raise failure_of(call.ended.read_error())


_read_params = msgspec.json.Decoder(_Params).decode
