"""One invocation of an operation, from its arguments to its reply.

Owns what runs of plain and of ``async`` functions have in common, and the run of a plain function in a thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ._context import Context
from ._errors import Cancelled
from ._messages import EVENTS_MAX, encode, failure, success

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._channel import Channel
    from ._messages import Invoke
    from ._op import Op
    from ._threads import Threads

_FRAME = 1024  # bytes of a message around its result


class Run:
    """One invocation. ``limit`` is the size of the largest message, in bytes."""

    def __init__(self, op: Op, params: Invoke, channel: Channel, limit: int) -> None:
        self.op = op
        self.channel = channel
        self.limit = limit - _FRAME
        self.cancelled = False
        self.events: list[bytes] = []
        self.renew(params)

    def renew(self, params: Invoke) -> None:
        """Take the parameters of this turn: the time that is left is another one."""
        self.params = params
        left = params.deadline_ms
        self.deadline = None if left is None else time.monotonic() + left / 1000

    def arguments(self) -> dict[str, Any]:
        """Read the arguments of the function. Raises ``ModuleError`` ``bad_request``."""
        return self.op.arguments(self.params.args, Context(self))

    def chunk(self, value: object) -> None:
        """Send a chunk. Raises ``Cancelled`` if nobody waits for it."""
        message = b'{"chunk":%b}' % encode(value, f"a chunk of {self.op.name}", self.limit)
        if self.cancelled or not self.channel.chunk(message):
            raise Cancelled

    async def drain(self) -> None:
        """Wait while chunks have not been taken."""
        await self.channel.drain()

    def event(self, event: str, data: Mapping[str, Any]) -> None:
        """Add an event to the next reply, unless there are a thousand."""
        if len(self.events) < EVENTS_MAX:
            self.events.append(encode({"event": event, "data": data}, f"an event of {self.op.name}"))

    async def call(self, name: str, args: Mapping[str, Any]) -> Any:
        """Refuse a system call: only the runs of ``async`` functions make them."""
        raise TypeError(f"{self.op.name}: the system call {name} with {sorted(args)} needs an `async def`")

    def take_events(self) -> list[bytes]:
        """Give the events since the last reply."""
        events, self.events = self.events, []
        return events

    def succeeded(self, result: object) -> bytes:
        """Make the reply with a result."""
        told = encode(result, f"the result of {self.op.name}", self.limit - sum(map(len, self.events)))
        return success(told, self.take_events())

    def failed(self, error: BaseException) -> bytes:
        """Make the reply that says what went wrong."""
        return failure(error, self.op.name, self.take_events())


class PlainRun(Run):
    """The run of a plain function in a thread. Nothing can interrupt it there: a cancel is only told to it."""

    def __init__(self, op: Op, params: Invoke, channel: Channel, limit: int) -> None:
        super().__init__(op, params, channel, limit)
        self._threads: Threads | None = None

    def start(self, threads: Threads) -> None:
        """Run as soon as a thread is free. A run that is cancelled before never begins."""
        self.channel.attach(self._stop)
        threads.submit(self._work, threads)

    def _work(self, threads: Threads) -> None:
        self._threads = threads  # before the question: a cancel asks the other way round
        if not self.cancelled:
            self.channel.finish(self._reply())
        self._threads = None

    def _reply(self) -> bytes:
        try:
            return self.succeeded(self.op.function(**self.arguments()))
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the module lives on
            return self.failed(error)

    def _stop(self) -> None:
        self.cancelled = True
        if self._threads is not None:
            self._threads.watch(lambda: self._threads is not None)
