"""Deadlines: every wait of one kernel, kept by one timer.

Owns the time bounds, and ends a wait early with an error. It does not know what a wait is for. ``asyncio.timeout`` sets
a timer for each wait; here a wait is an entry in a dict, and the timer is set again only for a deadline before its own.
"""

from __future__ import annotations

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec

from amplifier_core._protocol.errors import BadRequest, KernelError, Timeout, clues_of, short
from amplifier_core.hookspecs._fork import FORKED

if TYPE_CHECKING:
    from types import TracebackType


def seconds_of(timeout: object, default: float) -> float:
    """Check a time bound that a caller gave, in seconds; ``None`` means the default. Raises ``BadRequest``."""
    if timeout is None:
        return default
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= _SECONDS_MAX:
        raise BadRequest(f"timeout: expected a positive number of seconds, got {short(timeout)}")
    return timeout


_STOP_SECONDS = 1.0  # the longest wait for foreign code that does not end when its task is cancelled
_SECONDS_MAX = 1e9  # thirty years: a longer bound is a mistake
_BLOCKED = 0.5  # seconds by which a timer is late if something held the loop
_SLACK = 0.005  # seconds; deadlines so close to each other end in one sweep


class Deadlines:
    """The waits in progress, and the one timer that ends each of them at its deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: dict[Deadline, None] = {}
        self._wake = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.forked: bool = False
        """Whether this process was forked from the kernel's: then no call is taken."""

    def within(self, seconds: float, what: str, owner: object = None) -> Deadline:
        """Bound the body of a ``with``: after ``seconds`` it raises a ``Timeout`` whose message names ``what``."""
        task = asyncio.current_task()
        if task is None:
            raise BadRequest("the kernel has to be called from a task, not from a callback")
        when = self.loop.time() + seconds
        deadline = Deadline(self, seconds, what, owner, task, task.cancelling(), when, when)
        self.waiting[deadline] = None
        if when < self._wake:
            self.arm(when)
        return deadline

    def check_loop(self) -> None:
        """Raise ``BadRequest`` in a fork, and anywhere else than on the kernel's event loop."""
        try:
            if asyncio.get_running_loop() is self.loop and not self.forked:
                return
        except RuntimeError:
            pass
        if self.forked:
            raise BadRequest(FORKED)
        running_loop()
        raise BadRequest("the kernel belongs to another event loop")

    def after_fork(self) -> None:
        """Take no call any more in a process that was forked from the kernel's."""
        self.forked = True

    async def stop(self, owner: object, error: KernelError, spared: asyncio.Task[Any] | None = None) -> None:
        """End every wait of one owner with an error, except those of one task: the caller's, unless it says another.

        Return when they have ended.
        """
        spared = spared or asyncio.current_task(self.loop)
        deadlines = [deadline for deadline in self.waiting if deadline.owner is owner and deadline.task is not spared]
        for deadline in deadlines:
            deadline.ended = deadline.ended or self.loop.create_future()
            deadline.fail(type(error)(error.message, details=error.details))
        if deadlines:
            await asyncio.wait([deadline.ended for deadline in deadlines if deadline.ended], timeout=_STOP_SECONDS)

    async def catch_up(self) -> None:
        """End the waits whose deadlines have passed while foreign code held the loop: the caller's own by raising."""
        if self.loop.time() >= self._wake:
            self.close()
            self._sweep()
            await asyncio.sleep(0)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake = math.inf

    def arm(self, when: float) -> None:
        """Set the timer to ``when`` (the loop's time), unless it fires earlier anyway."""
        if when < self._wake:
            self.close()
            self._wake = when
            self._timer = self.loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._timer, self._wake = None, math.inf
        now = self.loop.time() + _SLACK
        late = [deadline for deadline in self.waiting if deadline.when <= now and deadline.error is None]
        within = self._nested() if late else {}
        for deadline in late:
            deadline.fail(deadline.timeout(within.get(deadline)))
        self._cancel_again(late)
        self.arm(min((deadline.when for deadline in self.waiting if deadline.error is None), default=math.inf))

    def _cancel_again(self, late: list[Deadline]) -> None:
        """Cancel a task again for each deadline that failed with another one within it: of both asyncio made one."""
        failed: dict[asyncio.Task[object], list[Deadline]] = {}
        for deadline in late:
            failed.setdefault(deadline.task, []).append(deadline)
        for deadlines in failed.values():
            self._cancel_later(deadlines)

    def _cancel_later(self, failed: list[Deadline]) -> None:
        """Cancel the task of these deadlines once more if it still cleans up in the last of them, the inner one."""

        def cancel() -> None:
            if failed.pop() in self.waiting:
                failed[0].task.cancel()
                failed[0].task.uncancel()
            self._cancel_later(failed)

        if len(failed) > 1:
            self.loop.call_later(_SLACK, cancel)

    def _nested(self) -> dict[Deadline, Deadline]:
        """Find for each wait the next one of its task that began within it. All at once: there may be thousands."""
        last: dict[asyncio.Task[object], Deadline] = {}
        within: dict[Deadline, Deadline] = {}
        for deadline in reversed(self.waiting):
            if deadline.task in last:
                within[deadline] = last[deadline.task]
            last[deadline.task] = deadline
        return within


class Deadline(msgspec.Struct, eq=False):
    """One bounded wait of one task. If other code cancels the task, ``CancelledError`` is raised as usual."""

    deadlines: Deadlines
    seconds: float
    what: str
    owner: object
    task: asyncio.Task[object]
    cancelling: int
    limit: float
    when: float
    error: KernelError | None = None
    ended: asyncio.Future[None] | None = None
    idle_seconds: float | None = None
    cpu_ms: float = 0.0  # charged so far by `Budget`
    phase: str = "system calls"  # of a wait around this one: a module waits for what it has called

    def __enter__(self) -> Self:
        return self

    def fail(self, error: KernelError) -> None:
        """End the wait with an error, in the next step of its task. Later errors are ignored."""
        if self.error is None:
            self.error = error
            self.task.cancel()

    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.limit - self.deadlines.loop.time()

    def restart_idle(self) -> None:
        """Begin the idle time anew, if there is one: the wait ends after ``idle_seconds`` without another call."""
        if self.idle_seconds is not None:
            self.when = min(self.limit, self.deadlines.loop.time() + self.idle_seconds)
            self.deadlines.arm(self.when)

    def pause_idle(self) -> None:
        """Stop the idle time until the next ``restart_idle``: meanwhile the module is not expected to send anything."""
        self.when = self.limit

    def timeout(self, inner: Deadline | None = None) -> Timeout:
        """Make the error for a wait whose time is over. It names what was waited for, if not the module.

        ``inner`` is a wait within this one.
        """
        idle = self.when < self.limit
        seconds = self.idle_seconds if idle else self.seconds
        error = Timeout(f"{self.what}: no {'message' if idle else 'answer'} within {seconds:g} s")
        late = self.deadlines.loop.time() - self.when
        if inner is not None:
            _say_phase(error, inner.phase, inner.what)
        if late > _BLOCKED:
            error.reword(f"{error.message}; the event loop was blocked for {late:.1f} s, by code that did not await")
        return error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        del self.deadlines.waiting[self]
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)
        if self.error is not None and self.task.uncancel() <= self.cancelling and kind is asyncio.CancelledError:
            if isinstance(self.error, Timeout):
                _add_clues(self.error, clues_of(error))
            raise self.error from error


def _add_clues(error: Timeout, clues: dict[str, Any]) -> None:
    """Say what is known of the request that was cancelled. Of one that was not sent, its module knows nothing."""
    if "phase" in error.details:
        return
    if "phase" in clues:
        _say_phase(error, clues["phase"], clues["waited_for"])
    else:
        error.details.update(clues)


def _say_phase(error: Timeout, phase: str, waited_for: str) -> None:
    error.details["phase"] = phase
    error.reword(f"{error.message}; it waited for {waited_for}")


def running_loop() -> asyncio.AbstractEventLoop:
    """Give the event loop that runs in this thread. Raises ``BadRequest`` if it is none of asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = " (trio cannot run it)" if "trio" in sys.modules else ""
        raise BadRequest(f"the kernel needs asyncio{trio}: none of its event loops runs in this thread") from None
