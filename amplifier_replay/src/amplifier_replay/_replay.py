"""A replay: the kernel runs again, embedder and modules are played from the log, and each event is held against it.

Owns the order: what is due next is what the log has next. So nothing depends on how fast anything was.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Kernel, Timeout
from amplifier_core.hookspecs import Isolation

from ._acts import Embedder
from ._answers import Answers, is_description
from ._comparison import Comparison
from ._differences import Difference, told
from ._endings import ENDS, GOES_ON, Endings
from ._held import BEGINS, Held
from ._hooks import was_given_up
from ._log import Log, check_whole
from ._open import Open
from ._produced import Produced
from ._real import Real
from ._spans import RecordedIds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amplifier_core import KernelError, ModuleDescriptor

    from ._live import Live
    from ._log import Entry, Line, Part
    from ._new_log import NewLog

_TURNS, _IN_THREADS, _PAUSE = 1000, 10.0, 0.001
"""Turns of the event loop, and then seconds, in which what is due has to happen. Only threads take any, in which the
kernel asks an isolation. Meanwhile the loop pauses."""

_LONG = 1e6  # seconds
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
        self._comparison = Comparison(real)
        self._open = Open()
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
        self._held = Held(self._log, self._produced)
        self._ids.held = self._held.hold

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
        """Raise ``Difference`` for what was done too much."""
        left = self._open.too_much(each for each in self._produced.left() if each.event != "kernel:end")
        if left is not None:
            raise Difference(last, "nothing more", told(left))

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
        """Let the modules and the hooks be asked from now on. What is in the log from here on was not recorded.

        Raises ``BadRequest`` for a descriptor or a hook of something that a run does not have which is forked.
        """
        if live.again:  # one that is resumed may have been killed before its mounts
            live.check(self._answers.hooks.names)
        new.begin(event, **told_of_it)
        self._produced.go_on(new)
        self._bound(live)
        self._ids.go_on()
        self._answers.hooks.go_on(live.hooks)
        await self._answers.go_on(self._open.sent)

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
        self._held.wait_for(entry)
        turn, until = 0, 0.0
        while turn <= _TURNS or time.monotonic() < until:
            done = self._produced.take(entry)
            if done is not None:
                self._held.wait_for(None)
                self._check(done, entry)
                return
            acted = acted or self._act(entry)
            self._held.let_go_on(entry)
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
        """Raise ``Difference`` unless what was done is what the log has, and the log has it where it may be."""
        if not self._real and self._open.is_too_early(entry):
            raise Difference(entry, f"{told(entry)} later", "it before the event that it follows")
        self._comparison.check(done, entry)

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
        if entry.event == "module:invoke" and entry.span_id not in self._open.above:
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

    def _act_for_embedder(self, entry: Entry) -> bool:
        if self.embedder.act(entry):
            return True
        if entry.event in self._own:
            return False
        self.embedder.emit(entry)
        return True

    def _end(self, entry: Entry) -> bool:
        return self._endings.end(entry, self._open.above, waits=self._answers.waits(entry.span_id or ""))

    def _is_end(self, entry: Entry) -> bool:
        """Tell whether an event may tell of something that was given up."""
        if entry.event == "policy:decision":
            return True
        return entry.status == "error" and entry.event in ENDS

    def _is_embedders(self, entry: Entry) -> bool:
        """Tell whether the embedder did it, and not the kernel for a module that asked for it."""
        begins = entry.event in BEGINS
        if entry.component != "kernel" or (begins and entry.span_id in self._open.above):
            return False
        above = entry.parent_span_id if begins else entry.span_id
        if above is not None and self._open.is_asked_about(above):
            asks_module = begins and entry.read().get("op") == "on_event"  # the hook that comes next
            return not asks_module and self._answers.hooks.is_asked(above)
        return above not in self._open.above

    def _note(self, entry: Entry) -> None:
        """Note what has happened."""
        self._open.note(entry)
        match entry.event:
            case "module:wait":
                self._endings.end_unsent(entry)
            case "module:invoke" | "mount:add":
                self.embedder.end_call(entry.span_id or "")
                self._ids.forget(entry.span_id or "")
            case "session:end":
                self.embedder.end_session(entry.session_id or "")
            case "session:span":
                self.embedder.end_span(entry.span_id or "")


def _usable(isolations: Mapping[str, Isolation | KernelError]) -> dict[str, Isolation]:
    return {name: each for name, each in isolations.items() if isinstance(each, Isolation)}
