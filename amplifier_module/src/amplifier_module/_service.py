"""What a module answers, on any transport.

Owns which run an ``invoke`` becomes. How requests come and replies go is the transports'.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._errors import ModuleError
from ._messages import MESSAGE_BYTES, Invoke, failure, read
from ._op import check_known
from ._run import PlainRun
from ._threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from ._channel import Channel
    from ._op import Op
    from ._turns import Waiting

_PLACES = 64


class Service:
    """The operations of a module, ready to be invoked. ``stuck`` is called when no plain function can run any more.

    A transport sets ``loop`` before the first ``async`` operation, and may call ``invoke`` in any thread.
    """

    loop: asyncio.AbstractEventLoop
    _waiting: Waiting

    def __init__(self, name: str, ops: Mapping[str, Op], limits: Mapping[str, int], stuck: Callable[[], None]) -> None:
        self.name = name
        self.ops = dict(ops)
        self.limit = limits.get("message_bytes", MESSAGE_BYTES)
        self._threads = Threads(limits.get("concurrency", _PLACES), stuck)
        self.needs_loop = any(op.is_async for op in self.ops.values())
        if self.needs_loop:
            from ._turns import Waiting  # noqa: PLC0415 - a module without async functions starts without asyncio

            self._waiting = Waiting()

    def invoke(self, text: bytes, channel: Channel) -> None:
        """Begin, or go on with, the invocation that these parameters tell. Whatever comes of it goes to the channel."""
        op = ""
        try:
            params = read(text, Invoke, "params")
            op = params.op
            found = check_known(self.ops, op, self.name)
            if not found.is_async:
                self._plain(found, params, channel)
            else:
                self.loop.call_soon_threadsafe(self._go_on, found, params, channel)
        except ModuleError as error:
            channel.finish(failure(error, op))

    def close(self) -> None:
        """Let idle threads end, and give up the runs that wait for system calls. Nothing is invoked afterwards."""
        self._threads.close()
        if self.needs_loop:
            self._waiting.close()

    def _plain(self, op: Op, params: Invoke, channel: Channel) -> None:
        if params.resume is not None:
            raise ModuleError("bad_request", f"resume: {op.name} makes no system calls")
        PlainRun(op, params, channel, self.limit).start(self._threads)

    def _go_on(self, op: Op, params: Invoke, channel: Channel) -> None:
        """Start an ``async`` operation or resume it, on the event loop."""
        from ._turns import AsyncRun, find_waiting  # noqa: PLC0415 - as above

        try:
            if params.resume is not None and not op.stateless:
                find_waiting(self._waiting, params.resume).resume(params, params.resume, channel)
            else:
                AsyncRun(op, params, channel, self.limit, self._waiting).start()
        except ModuleError as error:
            channel.finish(failure(error, op.name))


def tell_stuck(name: str) -> None:
    """Say on stderr that no plain function can run any more."""
    told = "every thread is held by a function whose caller gave up; look at context.cancelled in what takes long"
    sys.stderr.write(f"{name}: {told}\n")
    sys.stderr.flush()
