"""The future of one request's reply, or of the error that comes instead.

Owns the wake-up. asyncio's own future wakes its task in the next turn of the loop, which costs another look at every
descriptor. Here the task goes on at once, in the callback that has read the reply. The class has only what a task needs
of a future: ``asyncio.isfuture`` says what makes an object one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import add_clues

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from contextvars import Context

    from amplifier_core.hookspecs import Message


class ReplyFuture:
    """A future that one task awaits. ``on_cancel(request_id)`` is called when that task is cancelled."""

    __slots__ = (
        "_asyncio_future_blocking", "_context", "_error", "_loop", "_message", "_on_cancel", "_wake", "id", "mark",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, request_id: str, on_cancel: Callable[[str], object]) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self.id = request_id
        self.mark = 0
        """How much of stderr had been read when the request was sent."""
        self._on_cancel = on_cancel
        self._message: Message | None = None
        self._error: BaseException | None = None
        self._wake: Callable[[ReplyFuture], object] | None = None

    def __await__(self) -> Generator[ReplyFuture, None, Message]:
        """Wait, then give the message or raise the error."""
        if self._message is None and self._error is None:
            self._asyncio_future_blocking = True
            yield self
        return self._message or self.result()

    def done(self) -> bool:
        """Tell whether there is a message or an error."""
        return self._message is not None or self._error is not None

    def result(self) -> Message:
        """Give the message, or raise the error."""
        if self._message is None:
            raise self._error or asyncio.InvalidStateError
        return self._message

    def set_result(self, message: Message) -> None:
        """Give the message. The task runs on at once, or next if another task is running now."""
        self._message = message
        if self._wake is None:
            return
        if asyncio.current_task(self._loop) is None:
            self._context.run(self._wake, self)
        else:
            self._loop.call_soon(self._wake, self, context=self._context)

    def add_clues(self, clues: Mapping[str, Any]) -> None:
        """Say with the cancellation what may explain that no answer came."""
        if self._error is not None:
            add_clues(self._error, **clues)

    def set_exception(self, error: BaseException) -> None:
        """Give the error. The task raises it in the next turn of the loop."""
        self._error = error
        if self._wake is not None:
            self._loop.call_soon(self._wake, self, context=self._context)

    def cancel(self, msg: object = None) -> bool:
        """Cancel the request, unless it is over: the task raises ``CancelledError`` with the message.

        anyio knows its own cancellations by it. One that comes before the task has run gives it to one without.
        """
        if self.done():
            if msg is not None and isinstance(self._error, asyncio.CancelledError) and not self._error.args:
                self._error.args = (msg,)
            return False
        self.set_exception(asyncio.CancelledError(*(() if msg is None else (msg,))))
        self._on_cancel(self.id)
        return True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Give the loop of the future."""
        return self._loop

    def add_done_callback(self, wake: Callable[[ReplyFuture], object], *, context: Context) -> None:
        """Note the one task that waits."""
        self._wake, self._context = wake, context
