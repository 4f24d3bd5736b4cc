"""A replay: the kernel runs again, embedder and modules are played from the log, and each event is held against it.

Owns the order: what is due next is what the log has next. So nothing depends on how fast anything was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core import Kernel, Timeout
from amplifier_core.hookspecs import Isolation

from ._acts import STARTS, Embedder
from ._answers import Answers, is_description
from ._differences import Difference, part, told
from ._endings import ENDED_EARLY, ENDS, GOES_ON, Endings
from ._hooks import was_given_up, was_given_up_at
from ._log import Log, check_whole
from ._meaning import Meaning
from ._produced import Produced, are_equal, as_told, text_of
from ._real import Real
from ._spans import RecordedIds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amplifier_core import KernelError, ModuleDescriptor

    from ._live import Live
    from ._log import Entry, Line, Part
    from ._new_log import NewLog

_TURNS, _IN_THREADS, _PAUSE = 1000, 10.0, 0.001
"""Turns of the event loop, and then seconds, in which what is due has to happen. Only threads take any, in which the
kernel asks an isolation. Meanwhile the loop pauses."""

_LONG = 1e6  # seconds
_BEGINS = (*STARTS, "mount:pre_add")
_FROM_OUTSIDE = (*GOES_ON, "session:span", "hook:error", "sink:error", "events:dropped")


async def replay(path: Path | str, write: Callable[[bytes], Any]) -> int:
    """Run a recorded run again without its modules. ``write`` takes each line of a log that is equal to the recorded.

    Returns the number of events. Raises ``UnusableLog`` before anything runs for a log that is no whole recording, and
    ``Difference`` where the kernel does something else than it did.
    """
    path = Path(path)
    count = check_whole(path)
    await Replay(path, Real({}, trusted=False)).run(write)
    return count


async def compare(
    path: Path | str,
    real: Mapping[str, ModuleDescriptor | Path | str | None],
    *,
    trusted: bool = False,
    timeout: float = 30.0,
) -> int:
    """Run a recorded run again, some modules for real: to see whether a new version of one still does the same.

    ``real`` names those modules by their paths, each with its descriptor or the descriptor's file; ``None``: that of
    the recording. ``trusted`` runs those on this host without isolation. Each step of one may take ``timeout`` seconds.
    Ids and times that it makes up are held against those of the recording by their meaning.

    Returns the number of events. Raises ``UnusableLog`` as ``replay`` does, ``Difference`` for the first event that is
    another one, and ``BadRequest`` for a path that the run does not have.
    """
    path = Path(path)
    count = check_whole(path)
    modules = Real(real, trusted=trusted)
    await Replay(path, modules, timeout).run(lambda _: None)
    modules.check()
    return count


class Replay:
    """One replay. ``seconds``: how long each step of a real module may take.

    ``live`` is what the run goes on with after the ``part`` of its log.
    """

    def __init__(
        self,
        path: Path,
        real: Real,
        seconds: float | None = None,
        *,
        live: Live | None = None,
        part: Part | None = None,
    ) -> None:
        self._real = real
        self._seconds = seconds
        self._meaning = Meaning()
        self._log = Log(path, part.count if part else None)
        self._lines = iter(self._log)
        self._first = next(self._lines)
        began = self._first.entry.read()
        self._ids = RecordedIds(path, began["kernel"], part)
        self._produced = Produced(real, self._ids)
        self._answers = Answers(self._log, self._produced, real, live)
        settings = began["recording"]
        self._timeout, policy_timeout = live.times(settings) if live else (_LONG, _LONG)
        self.kernel = Kernel(
            event_log=False,
            sinks=[self._produced, *(live.sinks if live else ())],
            isolation=self._answers.isolation,
            isolations=_usable(live.isolations) if live else None,
            recording=True,
            timeout=self._timeout,
            policy_timeout=policy_timeout,
            observer_queue=settings["observer_queue"],
            fragment_bytes=settings["fragment_bytes"],
            ids=self._ids,
            open_transport=self._answers.open_transport,
        )
        self.embedder = Embedder(self.kernel, self._log, self._ids, self._answers.hooks, real)
        self._own = {*self.embedder.events, *self._answers.events, *_FROM_OUTSIDE}
        self._endings = Endings(self._log, self._ids, self.embedder, self._answers.hooks, self._is_embedders)
        self._above: dict[str, str | None] = {}  # what has begun and not ended, with the spans above it
        self._sent: set[str | None] = set()  # what of it was sent to its module
        self._given_up: set[str | None] = set()  # what of it ended with its caller, its time or its session
        self._asked: Counter[str] = Counter()  # questions to policy about each span
        self._held: dict[int | None, asyncio.Future[None]] = {}  # invocations, by the event with which each goes on
        self._due: Entry | None = None  # what is to happen now
        self._ids.held = self._hold

    async def run(self, write: Callable[[bytes], Any]) -> None:
        """Follow the log to its end."""
        with closing(self):
            await self._run(write)

    def close(self) -> None:
        """Close the log."""
        self._log.close()
        self._ids.close()

    async def _run(self, write: Callable[[bytes], Any]) -> None:
        async with self.kernel:
            try:
                last = await self.follow(write)
                self._check_end(last.entry)
            except BaseException:
                await self.give_up()
                raise
            await self.embedder.finish(give_up=False)
        write(last.text)

    def _check_end(self, last: Entry) -> None:
        """Raise ``Difference`` for what was done too much, but for calls that a module began when it was given up.

        The replayed kernel may be ahead of the log: it may have begun what the recorded one had not come to.
        """
        left = [each for each in self._produced.left() if each.event != "kernel:end"]
        above = {each.span_id: each.parent_span_id for each in left}
        for each in left:
            span_id = each.span_id
            while span_id is not None and span_id in above:  # None: it is of no span, as the end of a session
                span_id = above[span_id]
            if span_id not in self._given_up:
                raise Difference(last, "nothing more", told(each))

    async def give_up(self) -> None:
        """End what goes on."""
        self._answers.give_up()
        await self.embedder.finish(give_up=True)

    async def follow(self, write: Callable[[bytes], Any]) -> Line:
        """Follow the log up to ``kernel:end``, or to its last event, and give that."""
        line = self._first
        self._produced.take(line.entry)
        write(line.text)
        for line in self._lines:
            if line.entry.event == "kernel:end":
                break
            write(await self._follow(line))
        return line

    async def go_on(self, live: Live, new: NewLog, event: str, **told_of_it: Any) -> None:
        """Let the modules and the hooks be asked from now on. What is in the log from here on was not recorded."""
        new.begin(event, **told_of_it)
        self._produced.go_on(new)
        self._bound(live)
        self._ids.go_on()
        self._answers.hooks.go_on(live.hooks)
        await self._answers.go_on(self._sent)

    async def settle(self) -> None:
        """Let what is done without an event be done, such as another turn of a module."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _bound(self, live: Live) -> None:
        """Give each call that goes on as much time as it would have if it began now."""
        loop = asyncio.get_running_loop()
        for span_id, (entry, task) in self.embedder.calls.items():
            path = entry.module or ""
            if live.timeout is not None or not self._answers.has_time_limit(path):
                error = Timeout(f"{path}: no answer within {self._timeout:g} s")
                self._stop_when_done(task, loop.call_later(self._timeout, self._ids.end, span_id, error))

    @staticmethod
    def _stop_when_done(task: asyncio.Task[Any], timer: asyncio.TimerHandle) -> None:
        task.add_done_callback(lambda _: timer.cancel())

    async def _follow(self, line: Line) -> bytes:
        """Let happen what the log has next, and give it as a line."""
        try:
            await self._let_happen(line.entry)
            self._note(line.entry)
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # no kernel has written such an event
            reason = f"{type(error).__name__}: {error}"
            raise Difference(
                line.entry, "an event as the kernel writes it", f"{told(line.entry)} ({reason})"
            ) from error
        return line.text

    async def _let_happen(self, entry: Entry) -> None:
        acted = False
        self._ids.reach(entry.seq or 0)
        if self._is_copied(entry):
            return
        self._due = entry
        turn, until = 0, 0.0
        while turn <= _TURNS or time.monotonic() < until:
            done = self._produced.take(entry)
            if done is not None:
                self._due = None
                self._check(as_told(done, entry), entry)
                return
            acted = acted or self._act(entry)
            self._let_go_on(entry)
            self.embedder.check()
            turn += 1
            if turn == _TURNS:
                until = time.monotonic() + self._patience()
            await asyncio.sleep(0 if turn < _TURNS else _PAUSE)
        raise Difference(entry, told(entry), told(self._produced.first()))

    def _patience(self) -> float:
        """Give the seconds to wait for an event after the turns of the loop."""
        in_threads = self._answers.isolation.is_used or self._answers.is_measured
        return self._seconds or (_IN_THREADS if in_threads else 0.0)

    def _check(self, done: Entry, entry: Entry) -> None:
        """Raise ``Difference`` unless what was done is what the log has."""
        if not self._real and self._is_too_early(entry):
            raise Difference(entry, f"{told(entry)} later", "it before the event that it follows")
        if not are_equal(done, entry) and not self._means(entry, done):
            of_mount = self._is_of_real_mount(entry)
            raise Difference(entry, *(("ok", told(done)) if of_mount else part(text_of(entry), text_of(done))))

    def _is_too_early(self, entry: Entry) -> bool:
        """Tell whether the log has an event before the one that it follows: the kernel may be ahead of the log."""
        if entry.event == "policy:decision":
            return bool(entry.read().get("hooks")) and not self._asked[entry.span_id or ""]
        needs_sent = entry.event in ("module:reply", "module:chunk") or (entry.event in ENDS and entry.status == "ok")
        return needs_sent and entry.span_id not in self._sent

    def _means(self, entry: Entry, done: Entry) -> bool:
        """Tell whether an event of a run with real modules means what the log has."""
        if not self._real:
            return False
        if self._is_of_real_mount(entry):
            return done.status == entry.status
        return self._meaning.same(msgspec.json.decode(text_of(entry)), msgspec.json.decode(text_of(done)))

    def _is_of_real_mount(self, entry: Entry) -> bool:
        """Tell whether an event is of the mount of a module that runs for real, perhaps by another descriptor."""
        if entry.module not in self._real:
            return False
        by_policy = entry.event in ("policy:request", "policy:decision") and entry.read().get("action") == "mount"
        return by_policy or entry.event in ("mount:pre_add", "mount:add")

    def _is_copied(self, entry: Entry) -> bool:
        """Tell what came from outside and changes nothing: spans of the embedder's, faults of its observers and sinks.

        So do calls and events that were refused for what the log cannot have, and what observers in modules said.
        """
        if self._real.reports(entry):
            return True
        by_kernel, failed = entry.component == "kernel", entry.status == "error"
        if entry.span_id is None and (not by_kernel or entry.event == "module:reply"):
            return True  # an observer in a module
        if entry.event in _FROM_OUTSIDE:
            by_policy = entry.event == "hook:error" and entry.read().get("event") == "policy:request"
            return by_kernel and entry.module is None and not by_policy
        if entry.event == "module:invoke" and entry.span_id not in self._above:
            return failed and self._is_embedders(entry) and not self._produced.has(entry)  # a module's own is done
        return by_kernel and failed and entry.event not in self._own

    def _act(self, entry: Entry) -> bool:
        """Do what is due. False: nothing yet, or the kernel does it itself."""
        if entry.event == "policy:decision" and not was_given_up(entry):
            return self._answers.hooks.answer(entry)
        if self._is_end(entry):
            return self._end(entry) or self._answers.give(entry)
        if self._answers.give(entry):
            return True
        if is_description(entry) and not self._answers.is_described(entry):
            return self.embedder.describe(entry)
        return self._is_embedders(entry) and self._act_for_embedder(entry)

    def _hold(self, span_id: str, hook: str | None) -> Awaitable[None] | None:
        """Hold an invocation that would be ahead of the log: until its system calls begin, or policy is asked again.

        One that was given up before that, or when a hook had just answered, is held until it ends.
        """
        is_done = self._produced.ahead()

        def is_next(entry: Entry) -> bool:
            is_of_it = entry.span_id == span_id or (entry.parent_span_id == span_id and entry.event in _BEGINS)
            return is_of_it and not is_done(entry)

        found = self._due if self._due is not None and is_next(self._due) else self._log.find(is_next)
        is_own = found is not None and found.span_id == span_id
        if found is None or (is_own and _goes_on(found) if hook is None else not was_given_up_at(found, hook)):
            return None
        held = asyncio.get_running_loop().create_future()
        if hook is None:
            self._held[found.seq] = held
        return held

    def _let_go_on(self, entry: Entry) -> None:
        """Let an invocation go on that was held until now."""
        held = self._held.pop(entry.seq, None)
        if held is not None and not held.done():
            held.set_result(None)

    def _act_for_embedder(self, entry: Entry) -> bool:
        if self.embedder.act(entry):
            return True
        if entry.event in self._own:
            return False
        self.embedder.emit(entry)
        return True

    def _end(self, entry: Entry) -> bool:
        return self._endings.end(entry, self._above, waits=self._answers.waits(entry.span_id or ""))

    def _is_end(self, entry: Entry) -> bool:
        """Tell whether an event may tell of something that was given up."""
        if entry.event == "policy:decision":
            return True
        return entry.status == "error" and entry.event in ENDS

    def _is_embedders(self, entry: Entry) -> bool:
        """Tell whether the embedder did it, and not the kernel for a module that asked for it."""
        begins = entry.event in _BEGINS
        if entry.component != "kernel" or (begins and entry.span_id in self._above):
            return False
        above = entry.parent_span_id if begins else entry.span_id
        if above is not None and self._asked[above]:
            asks_module = begins and entry.read().get("op") == "on_event"  # the hook that comes next
            return not asks_module and self._answers.hooks.is_asked(above)
        return above not in self._above

    def _note(self, entry: Entry) -> None:
        """Note what has happened."""
        span_id = entry.span_id or ""
        match entry.event:
            case "policy:request":
                self._asked[span_id] += 1
                self._above.setdefault(span_id, entry.parent_span_id)
            case "policy:decision":
                self._asked -= Counter((span_id,))
            case "module:wait":
                self._above.setdefault(span_id, entry.parent_span_id)
                self._endings.end_unsent(entry)
            case "module:pre_invoke" | "mount:pre_add":
                self._sent.add(span_id)
                self._above.setdefault(span_id, entry.parent_span_id)
            case "module:invoke" | "mount:add":
                self._above.pop(span_id, None)
                if _ended_early(entry):
                    self._given_up.add(span_id)
                self._sent.discard(span_id)
                self.embedder.end_call(span_id)
                self._ids.forget(span_id)
            case "session:end":
                self.embedder.end_session(entry.session_id or "")
            case "session:span":
                self.embedder.end_span(span_id)


def _usable(isolations: Mapping[str, Isolation | KernelError]) -> dict[str, Isolation]:
    return {name: each for name, each in isolations.items() if isinstance(each, Isolation)}


def _ended_early(entry: Entry) -> bool:
    """Tell the end of what was given up, or had no time left."""
    return entry.event in ENDS and entry.status == "error" and entry.read_error().get("code") in ENDED_EARLY


def _goes_on(entry: Entry) -> bool:
    """Tell an event before which an invocation was asked for its next turn, or had ended by itself."""
    return entry.event in ("module:reply", "module:chunk", *ENDS) and not _ended_early(entry)
