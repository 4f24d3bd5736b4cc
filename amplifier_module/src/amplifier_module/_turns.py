"""The run of an ``async`` function, with its system calls over ``pending`` and ``resume`` (protocol, section 2).

Owns the turns: which calls are asked for together, and how the function goes on with their results. It waits for them
in this process, or, as a stateless operation, runs again from its beginning with the results so far.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from ._errors import Cancelled, ModuleError
from ._messages import Failure, Outcome, encode, pending, read
from ._run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._channel import Channel
    from ._messages import Invoke, Resume
    from ._op import Op

_CALLS_MAX = 1000  # system calls in one reply
_WAITING_MAX = 1024  # runs that wait for their system calls
_GRACE = 1.0  # seconds after its deadline for which a run waits for results
_BETWEEN_MAX = 1024 * 1024  # bytes of chunks that are kept while there is no request to send them for


class State(msgspec.Struct, omit_defaults=True):
    """``state`` of a ``pending`` reply: the name of the run that waits, or all that a stateless run had so far."""

    run: str = ""
    done: list[tuple[str, Raw]] = []
    asked: list[str] = []
    chunks: int = 0
    events: int = 0


class _Call:
    """One system call that has been asked for. ``text`` is its JSON."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def digest(self) -> str:
        return hashlib.blake2b(self.text, digest_size=12).hexdigest()

    def settle(self, result: Raw) -> None:
        """Give the function its result, or raise the error there. A call that the function gave up needs none."""
        if self.future.done():
            return
        try:
            outcome = read(result, Outcome, "resume.results")
        except ModuleError as problem:
            self.future.set_exception(problem)
            return
        if outcome.ok:
            self.future.set_result(outcome.result)
        else:
            failed = outcome.error or Failure("internal", "a system call failed without an error")
            self.future.set_exception(ModuleError(failed.code, failed.message, failed.details))


class Waiting:
    """The runs that wait for their system calls, by names that nobody guesses. Used on the event loop alone."""

    def __init__(self) -> None:
        self._runs: dict[str, AsyncRun] = {}

    def keep(self, run: AsyncRun) -> str:
        """Keep a run until its results come, and give its name. Of too many, the oldest one is given up."""
        if len(self._runs) >= _WAITING_MAX:
            self.drop(next(iter(self._runs)))
        name = os.urandom(16).hex()
        self._runs[name] = run
        return name

    def take(self, name: str) -> AsyncRun:
        """Give a run that waits, once. Raises ``ModuleError``."""
        run = self._runs.pop(name, None)
        if run is None:
            raise ModuleError(
                "interrupted",
                "no run of this process waits for these results: it was started again, or another process had the run. "
                "An operation with stateless=True can go on anywhere",
            )
        return run

    def drop(self, name: str) -> None:
        """Cancel a run that still waits."""
        self._runs.pop(name).give_up()

    def close(self) -> None:
        """Cancel all runs that still wait."""
        for name in list(self._runs):
            self.drop(name)


def find_waiting(waiting: Waiting, resume: Resume) -> AsyncRun:
    """Give the run that waits for these results. Raises ``ModuleError``."""
    state = read(resume.state, State, "resume.state")
    return waiting.take(state.run)


class AsyncRun(Run):
    """The run of an ``async`` function, over all its turns. Everything but ``_stop`` happens on the event loop."""

    def __init__(self, op: Op, params: Invoke, channel: Channel, limit: int, waiting: Waiting) -> None:
        super().__init__(op, params, channel, limit)
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._wanted: list[_Call] = []
        self._asked: list[_Call] = []
        self._asking = False
        self._between: list[bytes] = []
        self._last: bytes | None = None
        self._past = State()
        self._seen = State()  # what this run has done again of its past
        self._expiry: asyncio.TimerHandle | None = None
        self._ended = False

    def start(self) -> None:
        """Begin the function; a stateless one with the results of its past."""
        try:
            self._remember()
        except ModuleError as error:
            self._finish(self.failed(error))
            return
        self._task = self._loop.create_task(self._main(), name=self.op.name)
        self.channel.attach(self._stop)

    def resume(self, params: Invoke, resume: Resume, channel: Channel) -> None:
        """Go on with the results of the calls that were asked for."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.renew(params)
        self.channel = channel
        asked, self._asked = self._asked, []
        if len(asked) != len(resume.results):
            self._finish(self.failed(_wrong_number(len(asked), len(resume.results))))
            self._stop_task()
            return
        channel.attach(self._stop)
        for message in self._between:
            channel.chunk(message)
        self._between = []
        for call, result in zip(asked, resume.results, strict=True):
            call.settle(result)
        if self._last is not None:  # the function did not wait for the calls
            self._finish(self._last)
        self._ask_soon()

    def give_up(self) -> None:
        """End a run that nobody resumes."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.cancelled = True
        self._stop_task()

    def chunk(self, value: object) -> None:
        """Send a chunk; keep it while there is no request; leave it out if a run before this one sent it."""
        if self._ended:
            raise Cancelled
        if self._seen.chunks < self._past.chunks:
            self._seen.chunks += 1
            return
        if not self._waits():
            super().chunk(value)
        else:
            self._keep_chunk(b'{"chunk":%b}' % encode(value, f"a chunk of {self.op.name}", self.limit))
        self._seen.chunks += 1
        self._past.chunks += 1

    def event(self, event: str, data: Mapping[str, Any]) -> None:
        """Add an event to the next reply, unless a run before this one sent it."""
        self._seen.events += 1
        if self._seen.events > self._past.events:
            super().event(event, data)

    async def call(self, name: str, args: Mapping[str, Any]) -> Any:
        """Make a system call, together with those that others of this run ask for at the same time."""
        if self._ended or self.cancelled:
            raise Cancelled
        call = _Call(encode({"name": name, "args": args}, f"the args of {name}", self.limit // 2))
        self._wanted.append(call)
        self._ask_soon()
        return await call.future

    async def _main(self) -> None:
        try:
            reply = self.succeeded(await self.op.function(**self.arguments()))
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the module lives on
            reply = self.failed(error)
        if self._waits():
            self._last = reply
        elif not self._ended:
            self._finish(reply)

    def _waits(self) -> bool:
        """Tell whether the request has its reply, and this run waits for the next one."""
        return self.channel.answered and not self._ended and not self.cancelled

    def _finish(self, reply: bytes) -> None:
        """Send the last reply. System calls that nobody asked the kernel for are given up."""
        self._ended = True
        for call in self._wanted:
            call.future.cancel()
        self.channel.finish(reply)

    def _ask_soon(self) -> None:
        """Ask for the system calls once the other tasks of this run that are ready have had their turn."""
        if self._wanted and not self._asking and not self.channel.answered:
            self._asking = True
            self._loop.call_soon(self._loop.call_soon, self._ask)

    def _ask(self) -> None:
        self._asking = False
        self._wanted = [call for call in self._wanted if not call.future.done()]
        if not self._wanted or self._ended or self.channel.answered:
            return
        if self._past.done and not self._recall():
            return
        calls, self._wanted = self._split()
        self._suspend(calls)

    def _recall(self) -> bool:
        """Settle the calls that a run before this one made; tell whether others are left to ask for."""
        known = self._past.done
        for call in list(self._wanted):
            digest = call.digest()
            place = next((n for n, (each, _) in enumerate(known) if each == digest), None)
            if place is not None:
                self._seen.done.append(known[place])
                call.settle(known.pop(place)[1])
                self._wanted.remove(call)
        if self._wanted and known:
            diverged = "stateless: run again, it made other system calls than before; they have to be the same"
            self._finish(self.failed(ModuleError("internal", f"{self.op.name} is {diverged}")))
            self._stop_task()
        return bool(self._wanted) and not known

    def _split(self) -> tuple[list[_Call], list[_Call]]:
        """Take as many calls as fit into one reply."""
        size = count = 0
        for call in self._wanted[:_CALLS_MAX]:
            size += len(call.text) + 1
            if size > self.limit // 2 + 1:
                break
            count += 1
        return self._wanted[:count], self._wanted[count:]

    def _suspend(self, calls: list[_Call]) -> None:
        """Reply ``pending``, and wait for the results, or end until the run begins again with them."""
        events = self.take_events()
        try:
            state = self._state(calls)
        except ModuleError as error:
            self._finish(self.failed(error))
            self._stop_task()
            return
        self.channel.finish(pending([call.text for call in calls], state, events))
        if self.op.stateless:
            self._ended = True
            self._stop_task()

    def _state(self, calls: list[_Call]) -> bytes:
        self._asked = calls
        if self.op.stateless:
            told = State(done=self._seen.done, asked=[call.digest() for call in calls])
            told.chunks, told.events = self._past.chunks, max(self._seen.events, self._past.events)
            state = msgspec.json.encode(told)
            if len(state) > self.limit // 2:
                raise ModuleError("internal", f"{self.op.name}: its results so far take {len(state):,} bytes, too many")
            return state
        name = self._waiting.keep(self)
        if self.deadline is not None:
            self._expiry = self._loop.call_at(self.deadline + _GRACE, self._waiting.drop, name)
        return msgspec.json.encode(State(run=name))

    def _remember(self) -> None:
        """Read the past of a stateless run."""
        resume = self.params.resume
        if resume is None:
            return
        past = read(resume.state, State, "resume.state")
        if len(past.asked) != len(resume.results):
            raise _wrong_number(len(past.asked), len(resume.results))
        past.done += zip(past.asked, resume.results, strict=True)
        self._past = past

    def _stop(self) -> None:
        """Cancel the function; called in any thread."""
        self.cancelled = True
        self._loop.call_soon_threadsafe(self._stop_task)

    def _stop_task(self) -> None:
        self._ended = True
        self._task.cancel()

    def _keep_chunk(self, message: bytes) -> None:
        if sum(map(len, self._between)) + len(message) > _BETWEEN_MAX:
            raise ModuleError("internal", f"{self.op.name}: too many chunks while it waits for system calls")
        self._between.append(message)


def _wrong_number(asked: int, got: int) -> ModuleError:
    return ModuleError("bad_request", f"resume.results: expected {asked}, got {got}")
