"""The requests on one stream of lines: ids, replies in any order, chunks, and the grace after a cancel.

Owns which reply belongs to which request. Each stream, of a process or a socket, has a correlator of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amplifier_core import Cancelled, Unreachable
from amplifier_core.hookspecs import UNSET, decode_message, decode_message_large

from ._framing import CANCEL, find_ids, frame
from ._reply import ReplyFuture

if TYPE_CHECKING:
    from collections.abc import Callable

    from amplifier_core import KernelError
    from amplifier_core.hookspecs import Chunks, Message, Notify

    from ._line_stream import LineReader, LineStream

CANCEL_GRACE = 1.0
"""Seconds that a module has to answer a request that was cancelled, before it is killed."""

GRACE = "the module, which had not answered a request that was cancelled before; this one was not sent"
"""What a request waits for that is held back."""

_LATE = "events: they came with the reply to a request that had been cancelled"


class Correlator:
    """Sends requests on a stream that ``start`` opens, and takes its lines: all of section 3 but the bytes."""

    def __init__(self, start: Callable[[LineReader], LineStream], notify: Notify) -> None:
        self._loop = asyncio.get_running_loop()
        self._notify = notify
        self._waiting: dict[str, ReplyFuture] = {}
        self._chunks: dict[str, Chunks] = {}
        self._cancelled: dict[str, asyncio.TimerHandle] = {}  # in their grace
        self._count = 0
        self._answered = False
        self.ready = True
        """Whether a request may be sent now."""
        self.settled = asyncio.Event()
        """Set while no cancelled request is in its grace."""
        self.child: LineStream = start(self)
        """The stream, as ``start`` gave it."""

    @property
    def settling(self) -> bool:
        """Whether a cancelled request is in its grace: a request sent now would end with the process, if that ends."""
        return bool(self._cancelled) and self.child.usable

    def send(self, method: str, params: bytes, chunks: Chunks | None = None) -> ReplyFuture:
        """Send one request, and give the future of its reply.

        Raises ``BrokenPipeError`` if a process that had answered before was gone before anything was sent.
        """
        self._count = number = self._count + 1
        request_id = f"r{number}"
        reply = ReplyFuture(self._loop, request_id, self._on_cancel)
        try:
            self.child.write(frame(number, method, params), now=not self._waiting)
        except BrokenPipeError:
            if self._answered:  # it ended while it was idle, and another process may be asked
                raise
            self.child.ending()  # it ended before its first answer: its exit is the cause to report
        reply.mark = self.child.heard
        self._waiting[request_id] = reply
        if chunks is not None:
            self._chunks[request_id] = chunks
        if self.child.held:
            self.child.resume()
        return reply

    def drop_chunks(self, request_id: str) -> None:
        """Forget the reader of a request's chunks, which does not hold the module back any more."""
        del self._chunks[request_id]
        self.child.resume()

    def closed_stdin(self) -> None:
        """Give up a process that does not read any more: what was not written yet has not reached it."""
        self.child.kill(Unreachable(self.child.closed))

    # What the process calls.

    def on_end(self, error: KernelError | None) -> None:
        """Fail the requests in flight; no two callers share an exception."""
        self._update()
        if not self.child.alive:
            for timer in self._cancelled.values():
                timer.cancel()
        if error is not None:
            waiting, self._waiting = self._waiting, {}
            for reply in waiting.values():
                details = self.child.explain(error.details, reply.mark, len(waiting))
                reply.set_exception(type(error)(error.message, details=details))

    def on_line(self, line: bytes) -> None:
        """Take one message, or what is none."""
        try:
            message = decode_message(line, self.child.limit)
        except ValueError as error:
            self._on_broken_line(line, str(error))
        else:
            self._on_message(line, message)

    async def on_large_line(self, line: bytes) -> None:
        """Take one message that is large, and let others run meanwhile."""
        try:
            message = await decode_message_large(line, self.child.limit)
        except ValueError as error:
            self._on_broken_line(line, str(error))
        else:
            self._on_message(line, message)

    def _on_message(self, line: bytes, message: Message) -> None:
        request_id = message.id or ""
        if message.chunk is not UNSET and (request_id in self._waiting or request_id in self._cancelled):
            self._on_chunk(request_id, message)
        elif (reply := self._waiting.pop(request_id, None)) is not None:
            self._answered = self.child.answered = True
            reply.set_result(message)
        elif (timer := self._cancelled.pop(request_id, None)) is not None:
            timer.cancel()
            self._update()
            if message.events:
                dropped = {"count": len(message.events), "first": message.events[0]}
                self._notify("events:dropped", dropped, Cancelled(_LATE))
        else:
            self.child.count_noise(line)

    def _on_chunk(self, request_id: str, message: Message) -> None:
        """Pass a chunk on. A full reader holds the module back only if no other reply is expected of it."""
        self.child.answered = True
        chunks = self._chunks.get(request_id)
        if chunks is None or chunks.put(message.chunk, message.size):
            return
        if len(self._waiting) == 1 and not self._cancelled:
            self.child.pause()
            chunks.when_room(self.child.resume)

    def _on_broken_line(self, line: bytes, why: str) -> None:
        """Fail the requests that a broken line answers; a line that answers none is noise."""
        named = find_ids(line, alone=len(self._waiting) == 1)
        broken = [reply for each in named if (reply := self._waiting.pop(each, None)) is not None]
        settled = [timer for each in named if (timer := self._cancelled.pop(each, None)) is not None]
        for reply in broken:
            self._answered = True
            reply.set_exception(self.child.broke_contract(line, why, reply.mark))
        for timer in settled:
            timer.cancel()
        self._update()
        if not broken and not settled:
            self.child.count_noise(line)

    def _on_cancel(self, request_id: str) -> None:
        """Tell the module that a request is cancelled, and give it a short grace to answer."""
        reply = self._waiting.pop(request_id)
        reply.add_clues(self.child.clues(reply.mark))
        try:
            self.child.write(CANCEL % request_id.encode(), now=True)
        except BrokenPipeError:
            self.closed_stdin()
            return
        self._cancelled[request_id] = self._loop.call_later(CANCEL_GRACE, self._on_grace_over, request_id)
        self._update()

    def _on_grace_over(self, request_id: str) -> None:
        del self._cancelled[request_id]
        why = f"{self.child.killed}: it did not answer a cancel within {CANCEL_GRACE:g} s"
        self.child.kill(Unreachable(why))

    def _update(self) -> None:
        """Let requests through, or hold them back."""
        self.ready = self.child.usable and not self._cancelled
        if self.settling:
            self.settled.clear()
        else:
            self.settled.set()
