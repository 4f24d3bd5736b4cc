"""The grace of a call to a transport that was cancelled: it has a bounded time to end, then it is given up.

Owns the bound. A call that is not cancelled runs as if it were awaited as it is: a task of its own would cost each call
turns of the loop, and would hide from a transport which task its caller cancels.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import types
from typing import TYPE_CHECKING, Any, TypeVar

from amplifier_core._protocol.errors import add_clues

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

_Result = TypeVar("_Result")

SECONDS = 1.0
"""The grace. A module has as much to answer a cancel (protocol, section 3)."""


def bounded(call: Awaitable[_Result], what: str) -> Awaitable[_Result]:
    """Give what to await in place of ``call``, so that it ends within ``SECONDS`` once it is cancelled.

    Then ``call`` is closed where it stands, and the ``CancelledError`` says that ``what`` had not ended it.
    """
    if type(call) is types.CoroutineType:
        return _driven(call, what)
    if asyncio.isfuture(call) and not _may_go_on(call):
        return call
    return _driven(call if asyncio.iscoroutine(call) else _awaited(call), what)


def is_cancelled() -> bool:
    """Tell whether somebody cancels this task. If not, a ``CancelledError`` comes from a call that cancelled itself."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _awaited(call: Awaitable[_Result]) -> _Result:
    return await call


def _may_go_on(future: object) -> bool:
    """Tell whether a future may go on after its ``cancel``: a task does, if its code hides the cancellation."""
    return isinstance(future, asyncio.Task) or type(future).__name__ == "_GatheringFuture"


@types.coroutine
def _driven(call: Coroutine[Any, Any, _Result], what: str) -> Generator[Any, Any, _Result]:
    """Run a coroutine step by step, in the task of the caller, so that it can be left.

    Nothing of the grace is made before it is needed: most calls are neither cancelled nor wait for a task.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    grace: _Grace | None = None
    step: Callable[[Any], Any] = call.send
    sent: BaseException | None = None
    try:
        while True:
            waits_for = step(sent)
            step, sent = call.send, None
            if grace is None and type(waits_for) is not _Future and _may_go_on(waits_for):
                grace = _Grace(what, task, before)
            try:
                if grace is None:
                    yield waits_for
                else:
                    yield from grace.wait(waits_for)
            except asyncio.CancelledError as error:
                grace = grace or _Grace(what, task, before)
                grace.begin(error)
                step, sent = call.throw, error
            except Exception as error:  # noqa: BLE001 - a future has failed, and the call may handle it
                step, sent = call.throw, error
            if grace is not None:
                grace.check()
    except StopIteration as end:
        result: _Result = end.value
        return result
    except BaseException:
        with contextlib.suppress(Exception):  # foreign code, which is left
            call.close()
        raise


_Future = asyncio.Future  # what most calls wait for


class _Grace:
    """The bound on one call from its first cancellation on, and the waits that can be left then."""

    def __init__(self, what: str, task: asyncio.Task[Any] | None, before: int) -> None:
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._cancelled: asyncio.CancelledError | None = None
        self._until = math.inf
        self._task = task
        self._before = before  # cancellations of the task that are not about this call
        self._over: asyncio.Future[None]  # what the task waits for in place of a future of foreign code

    def begin(self, error: asyncio.CancelledError) -> None:
        """Note the first cancellation: the grace begins."""
        if self._cancelled is None:
            self._cancelled, self._until = error, self._loop.time() + SECONDS

    def check(self) -> None:
        """Raise the first cancellation once the grace is over."""
        if self._cancelled is not None and self._loop.time() >= self._until:
            raise self._give_up(self._cancelled)

    def _forget_its_own(self) -> None:
        """End the grace if nobody cancels the call any more: foreign code had cancelled itself, as its timeouts do."""
        if self._cancelled is not None and self._task is not None and self._task.cancelling() <= self._before:
            self._cancelled, self._until = None, math.inf

    def _give_up(self, cancelled: asyncio.CancelledError) -> asyncio.CancelledError:
        told = f"{self._what} had not ended it {SECONDS:g} s after its cancellation, and was given up"
        add_clues(cancelled, given_up=told)
        cancelled.add_note(told)
        return cancelled

    def wait(self, future: Any) -> Generator[Any, Any, None]:
        """Wait as a task does for a future of foreign code, or for a turn of the loop, until the grace is over.

        A future that cannot go on is left to the task, unless the grace has begun.
        """
        self._forget_its_own()
        if future is None or (self._cancelled is None and not _may_go_on(future)):
            yield future
            return
        future._asyncio_future_blocking = False  # noqa: SLF001 - as a task does
        future.add_done_callback(self._wake, context=contextvars.copy_context())
        while not future.done() and self._loop.time() < self._until:
            self._over = self._loop.create_future()
            timer = None if self._cancelled is None else self._loop.call_at(self._until, self._wake)
            try:
                yield from self._over
            except asyncio.CancelledError as error:
                self.begin(error)
                if not future.cancel(*error.args):
                    raise
            finally:
                if timer is not None:
                    timer.cancel()

    def _wake(self, _: object = None) -> None:
        if not self._over.done():
            self._over.set_result(None)
