"""The ids of the replayed kernel: those of the log, given out again in the order in which they were drawn.

Owns which id is the next below a span. What the embedder did is told its ids by whoever does it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from bisect import insort
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from amplifier_core.hookspecs import Ids, RemoteParent, Span

from ._log import texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from amplifier_core import KernelError

    from ._log import Part

_STARTS = ("mount:pre_add", "policy:request", "module:wait", "module:pre_invoke", "module:invoke", "mount:add")
"""The events by which a span is heard of first."""

_CLOSES = ("module:reply", "module:invoke", "mount:add")
_ON_EVENT = b'{"op":"on_event"'
_MADE = ("session:start", "session:fork")


class Wanted(msgspec.Struct):
    """The ids of one act of the embedder's, until they are drawn."""

    request_id: str
    span_id: str
    parent_span_id: str | None = None  # of a span of the embedder's
    drawn: bool = False


wanted: ContextVar[Wanted | None] = ContextVar("amplifier_replay ids", default=None)
"""The ids of what is begun in this context."""

doer: ContextVar[weakref.ref[asyncio.Task[Any]] | None] = ContextVar("amplifier_replay task", default=None)
"""The task of the kernel that does what is done in this context, or asks what a hook is asked in it.

It is not held: its own context would hold it, and memory would grow until the garbage collector comes.
"""


class RecordedIds(Ids):
    """Gives the ids of a log. Those that the log does not have, of what never got into it, are new."""

    def __init__(self, path: Path, kernel: str, part: Part | None = None) -> None:
        super().__init__()
        self._kernel = kernel
        self._scout = Scout(path, part.count if part else None)
        self._last = int(part.last or kernel + "0" * 8, 16) if part else None  # the last of those of the log
        self._lives = False
        self._ends: dict[str, list[Callable[[KernelError], None]]] = {}
        self._tasks: dict[str, asyncio.Task[Any] | None] = {}  # in which the operations are done
        self.held: Callable[[str, str | None], Awaitable[object] | None] = lambda *_: None
        self.session_id: str | None = None
        """The id of the session that is made next, if the embedder makes it."""

    def hex16(self) -> str:
        """Give the kernel's own digits the first time, and then ids after those of the log, if the run is to go on."""
        kernel, self._kernel = self._kernel, ""
        if kernel:
            return kernel + "0" * 8
        if self._last is None:
            return super().hex16()
        self._last += 1
        return f"{self._last:016x}"

    def session(self, span: Span | None) -> str:
        """Give the id of the session that the embedder makes, or of the next one that was made in a span."""
        told, self.session_id = self.session_id, None
        if told is None and span is not None:
            told = self._scout.next_session(span.span_id)
        return told or super().session(span)

    def root(self) -> Span:
        """Give the span that is wanted."""
        told, span = _take(), super().root()
        if told is None:
            return msgspec.structs.replace(span, span_id=self.hex16())
        return Span(told.request_id, told.span_id, None, 1, span.tree)

    def child(self, parent: Span) -> Span:
        """Give the span that is wanted, or the next one that was drawn below this."""
        told, span = _take(), super().child(parent)
        if told is not None:
            self._scout.take_child(parent.span_id, told.span_id)
        span_id = told.span_id if told else self._scout.next_child(parent.span_id)
        return span if span_id is None else msgspec.structs.replace(span, span_id=span_id)

    def hook_call(self, parent: Span) -> Span:
        """Give the next span of a call of a policy hook that was drawn below this."""
        span, span_id = super().child(parent), self._scout.next_hook_call(parent.span_id)
        return span if span_id is None else msgspec.structs.replace(span, span_id=span_id)

    def continued(self, remote: RemoteParent) -> Span:
        """Give the span that is wanted."""
        told, span = _take(), super().continued(remote)
        return span if told is None else msgspec.structs.replace(span, span_id=told.span_id)

    def group(self, above: Span | None, remote: RemoteParent | None) -> Span:
        """Give the span that is wanted."""
        told, span = _take(), super().group(above, remote)
        if told is None:
            return span
        return Span(told.request_id, told.span_id, told.parent_span_id, span.depth, span.tree)

    def take_end(self, span: Span, end: Callable[[KernelError], None]) -> None:
        """Keep what ends an operation that was recorded."""
        if self._lives:
            return
        ends = self._ends.setdefault(span.span_id, [])
        ends[1:] = [end] if ends else []
        task = asyncio.current_task()
        doer.set(weakref.ref(task) if task is not None else None)
        if not ends:
            ends.append(end)
            self._tasks[span.span_id] = task

    def end(self, span_id: str, error: KernelError) -> bool:
        """End an operation early. False: it has not begun."""
        ends = self._ends.get(span_id)
        if ends:
            ends[0](error)
        return bool(ends)

    def cancel(self, span_id: str) -> bool:
        """Cancel the task that does an operation. False: it has not begun."""
        task = self._tasks.get(span_id)
        return task is not None and task.cancel()

    def end_question(self, span_id: str, error: KernelError) -> None:
        """End the question to a policy hook about a span."""
        self._ends[span_id][-1](error)

    def hold(self, span: Span, hook: str | None = None) -> Awaitable[object] | None:
        """Give what an operation waits for, if it is ahead of the log."""
        return None if self._lives else self.held(span.span_id, hook)

    def forget(self, span_id: str) -> None:
        """Note that an operation has ended."""
        self._ends.pop(span_id, None)
        self._tasks.pop(span_id, None)
        self._scout.forget(span_id)

    def go_on(self) -> None:
        """Note that what begins from now on was not recorded."""
        self._lives = True
        self._scout.forget_all()

    def close(self) -> None:
        """Close the log."""
        self._scout.close()

    def reach(self, number: int) -> None:
        """Note that the replay has come to that line."""
        self._scout.reach(number)

    def end_turn(self, span_id: str) -> None:
        """Note that the module of a span has replied: what is drawn below it from now on belongs to another turn."""
        self._scout.end_turn(span_id)


def _take() -> Wanted | None:
    told = wanted.get()
    if told is None or told.drawn:
        return None
    told.drawn = True
    return told


class _Turn(msgspec.Struct):
    """What was drawn below a span between two replies of its module, in order."""

    children: list[str] = []
    hook_calls: list[str] = []  # apart: hooks are asked about system calls when others are made already
    sessions: list[str] = []
    closed: bool = False


class _Below(msgspec.Struct):
    """What was drawn below a span, and which of it is known already."""

    turns: list[_Turn]
    known: set[str] = set()


_NOTHING = Raw(b"{}")


class _Entry(msgspec.Struct):
    """The members of an envelope by which a scout knows its way."""

    event: str
    session_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    data: Raw = _NOTHING


_decode = msgspec.json.Decoder(_Entry).decode


class Scout:
    """Reads a log ahead of its replay, no further than to the next reply of the module in question.

    The calls of one turn are in the log in the order in which they were sent or decided on. Their ids tell the order in
    which they were drawn. Nothing is kept of what is below the embedder's own spans: nobody asks for it.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self._entries = _entries(path, count)
        self._read = 0
        self._below: dict[str, _Below] = {}

    def close(self) -> None:
        """Close the file."""
        self._entries.close()

    def reach(self, number: int) -> None:
        """Read at least as far as to that line."""
        while self._read < number and (entry := next(self._entries, None)) is not None:
            self._note(entry)

    def next_child(self, span_id: str) -> str | None:
        """Give the next span that was drawn below one. ``None``: the log has no other in this turn."""
        children = self._turn(span_id).children
        return children.pop(0) if children else None

    def take_child(self, span_id: str, child_id: str) -> None:
        """Note that a span was drawn below one by the embedder, as a hook that is asked about it does."""
        for turn in self._below[span_id].turns if span_id in self._below else ():
            if child_id in turn.children:
                turn.children.remove(child_id)

    def next_hook_call(self, span_id: str) -> str | None:
        """Give the next span below one of a call of a policy hook that is a module."""
        hook_calls = self._turn(span_id).hook_calls
        return hook_calls.pop(0) if hook_calls else None

    def next_session(self, span_id: str) -> str | None:
        """Give the next session that was made in a span."""
        sessions = self._turn(span_id).sessions
        return sessions.pop(0) if sessions else None

    def end_turn(self, span_id: str) -> None:
        """Forget the turn that has ended, and with the last one the span."""
        while span_id not in self._below and (entry := next(self._entries, None)) is not None:
            self._note(entry)
        below = self._below.get(span_id)
        if below is not None:
            _ = self._turn(span_id)
            below.turns.pop(0)
            if not below.turns:
                del self._below[span_id]

    def forget(self, span_id: str) -> None:
        """Forget a span that has ended."""
        self._below.pop(span_id, None)

    def forget_all(self) -> None:
        """Forget what is left, and read no further."""
        self.close()
        self._below.clear()

    def _turn(self, span_id: str) -> _Turn:
        """Give the first turn of a span that has not ended, as soon as all of it is known."""
        below = self._below.get(span_id)
        if below is None:
            return _Turn()
        turn = below.turns[0]
        while not turn.closed and (entry := next(self._entries, None)) is not None:
            self._note(entry)
        return turn

    def _note(self, entry: _Entry) -> None:
        self._read += 1
        if entry.event in _STARTS:
            self._note_start(entry)
        elif entry.event in _MADE and (below := self._below.get(entry.span_id or "")):
            insort(below.turns[-1].sessions, entry.session_id or "")
        if entry.event in _CLOSES and (below := self._below.get(entry.span_id or "")):
            below.turns[-1].closed = True
            if entry.event == "module:reply":
                below.turns.append(_Turn())
                below.known.clear()  # whatever was called in a turn has ended with it

    def _note_start(self, entry: _Entry) -> None:
        """Note a span, and that it is below another one."""
        span_id = entry.span_id or ""
        above = self._below.get(entry.parent_span_id or "")
        if above is not None and span_id not in above.known:
            above.known.add(span_id)
            turn = above.turns[-1]
            insort(turn.hook_calls if _is_hook_call(entry) else turn.children, span_id)
        if span_id not in self._below:
            self._below[span_id] = _Below([_Turn()])


def _is_hook_call(entry: _Entry) -> bool:
    """Tell the call of a policy hook that is a module from others, about which policy is asked first."""
    return entry.event != "policy:request" and memoryview(entry.data)[: len(_ON_EVENT)] == _ON_EVENT


def _entries(path: Path, count: int | None) -> Generator[_Entry, None, None]:
    with contextlib.closing(texts(path)) as all_texts:
        for _, text in itertools.islice(all_texts, count):
            yield _decode(text)
