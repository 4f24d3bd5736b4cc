"""The connection to one STDIO module: requests in flight, replies in any order, cancellation, and the next start.

Owns which reply belongs to which request. Bytes and signals are the process's, lines are the framing's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amplifier_core import Cancelled, Internal, KernelError, Unreachable
from amplifier_core.hookspecs import UNSET, Usage, decode_message

from ._framing import CANCEL, LineBuffer, LineTooLongError, frame, id_in
from ._process import Process
from ._reply import Reply
from ._usage import measure_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Chunks, Isolation, Launch, Message, Notify

    from ._fields import StdioFields
    from ._orphans import Orphans

CANCEL_GRACE = 1.0
"""Seconds that a module has to answer a request that was cancelled, before it is killed."""


class StdioConnection:
    """One module as a child process. It is started again by the first request after its end."""

    local = True

    def __init__(self, descriptor: ModuleDescriptor, fields: StdioFields, notify: Notify, orphans: Orphans) -> None:
        self.unenforced = tuple(word for word in descriptor.capabilities if not word.startswith("sys:"))
        self.usage = self._usage if measure_here() else None
        self._descriptor = descriptor
        self._fields = fields
        self._notify = notify
        self._orphans = orphans
        self._granted: Sequence[str] = ()
        self._isolation: Isolation | None = None
        self._lives: list[_Life] = []  # the last one answers; earlier ones may still be dying
        self._closed = False

    def launch(self) -> Launch:
        """Say what is started, if all that the descriptor names is granted."""
        return self._fields.launch(self._descriptor.capabilities)

    async def start(self, granted: Sequence[str], isolation: Isolation | None) -> None:
        """Start the process, confined to what was granted, or with what was granted of the host's environment."""
        self._granted = granted
        self._isolation = isolation
        self._begin()

    def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Awaitable[Message]:
        """Send one request, and give what waits for its reply: a coroutine would cost half as much again."""
        life = self._lives[-1]
        if life.free and chunks is None:
            try:
                return life.send(method, params)
            except BrokenPipeError:
                life.closed_stdin()
        return self._request(method, params, chunks)

    async def _request(self, method: str, params: bytes, chunks: Chunks | None) -> Message:
        while (life := self._lives[-1]).undecided and not self._closed:
            await life.decided.wait()
        if self._closed:
            raise Unreachable("the module was unmounted")
        if life.ended:
            life = self._begin()
        try:
            reply = life.send(method, params, chunks)
        except BrokenPipeError:  # it had died unnoticed, or closed its stdin
            life.closed_stdin()
            life = self._begin()
            reply = life.send(method, params, chunks)
        try:
            return await reply
        finally:
            if chunks is not None:
                life.unread(reply.id)

    def clues(self) -> dict[str, Any]:
        """Say what may explain that no answer comes."""
        return self._lives[-1].clues() if self._lives else {}

    def kill(self, error: KernelError) -> None:
        """End the process at once, with what it started; what is in flight fails with such an error."""
        self._lives[-1].end(error)

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        self._closed = True
        await asyncio.gather(*(life.close() for life in self._lives))

    def _begin(self) -> _Life:
        self._lives = [life for life in self._lives if not life.gone]
        launch, orphans = self._fields.launch(self._granted), self._orphans
        if self._isolation is not None:
            launch = self._isolation.confine(launch, self._descriptor, self._granted)
        life = _Life(launch, None if self._isolation else orphans, self._descriptor.message_bytes, self._notify)
        self._notify("module:start", {"pid": life.pid, "command": list(self._fields.command), **launch.shown})
        self._lives.append(life)
        return life

    def _usage(self, *, exact: bool) -> Usage | None:
        measure = measure_here()
        if measure is None or not self._lives or self._lives[-1].ended:
            return None
        cpu_ms, memory_bytes = measure(self._lives[-1].pid, exact=exact)
        return Usage(cpu_ms, memory_bytes, settling=self._lives[-1].undecided)


class _Life:
    """One life of the process, from its start to its exit."""

    def __init__(self, launch: Launch, orphans: Orphans | None, limit: int, notify: Notify) -> None:
        self._loop = asyncio.get_running_loop()
        self._notify = notify
        self._limit = limit
        self._lines = LineBuffer(limit)
        self._waiting: dict[str, Reply] = {}
        self._chunks: dict[str, Chunks] = {}
        self._abandoned: dict[str, asyncio.TimerHandle] = {}
        self._count = 0
        self._noise = 0
        self._first_noise = b""
        self._answered = False
        self.ended = False
        self.free = True  # to take a request
        self.decided = asyncio.Event()
        self._process = Process(launch, self, orphans)
        self.pid = self._process.pid

    def send(self, method: str, params: bytes, chunks: Chunks | None = None) -> Reply:
        """Send one request, and give what waits for its reply.

        Raises ``BrokenPipeError`` if a process that had answered before was gone before anything was sent.
        """
        self._count += 1
        request_id = f"r{self._count}"
        reply = Reply(self._loop, request_id, self._give_up)
        try:
            self._process.write(frame(request_id, method, params), now=not self._waiting)
        except BrokenPipeError:
            if self._answered:  # it has ended idle, unnoticed: another life may be asked
                raise
            self.closed_stdout()  # it ended before it ever spoke, and has a story to tell
        self._waiting[request_id] = reply
        if chunks is not None:
            self._chunks[request_id] = chunks
        self._process.resume()
        return reply

    def unread(self, request_id: str) -> None:
        """Let a request's chunks go: nobody reads them any more, or holds back the module."""
        del self._chunks[request_id]
        self._process.resume()

    @property
    def undecided(self) -> bool:
        """Whether a cancelled request is in its grace: what is sent now would end with the process, if that ends."""
        return bool(self._abandoned) and not self.ended

    @property
    def gone(self) -> bool:
        """Whether nothing is left of the process."""
        return self._process.gone

    def end(self, error: KernelError) -> None:
        """Kill the process for what it did, and fail what is in flight; the next request starts another one."""
        self.ended = True
        self._decide()
        self._fail(error)
        self._process.kill()

    async def close(self) -> None:
        """End the process; what is in flight fails."""
        self.ended = True
        self._decide()
        self._fail(Unreachable("the module was unmounted"))
        await self._process.close()

    def received(self, data: bytes) -> None:
        """Take what the module wrote."""
        try:
            lines = self._lines.feed(data)
        except LineTooLongError:
            message = f"the module wrote a message of more than {self._limit} bytes (limits.message_bytes)"
            self.end(Internal(message, details={"limit": self._limit}))
            return
        for line in lines:
            self._on_line(line)

    def closed_stdin(self) -> None:
        """Give up a process that reads no more: of what was not written yet, nothing has reached it."""
        self.end(Unreachable("the module closed its stdin"))

    def closed_stdout(self) -> None:
        """Wait for the exit, which nearly always follows at once and has the better story; then kill."""
        self.ended = True
        self._decide()
        self._loop.call_later(_EXIT_GRACE, self._process.kill)

    def exited(self) -> None:
        """Fail what is in flight with the cause, and report the exit and the noise."""
        self.ended = True
        self._decide()
        outcome = self._process.outcome()
        for timer in self._abandoned.values():
            timer.cancel()
        self._fail(Unreachable(f"the module went away: {_manner(outcome)}", details=outcome))
        if self._noise:
            self._notify("module:noise", self._noise_so_far())
        self._notify("module:exit", outcome)

    def _on_line(self, line: bytes) -> None:
        try:
            message = decode_message(line)
        except ValueError as error:
            self._on_broken_line(line, str(error))
            return
        request_id = message.id or ""
        if message.chunk is not UNSET and (request_id in self._waiting or request_id in self._abandoned):
            self._on_chunk(request_id, message)
        elif (reply := self._waiting.pop(request_id, None)) is not None:
            self._answered = True
            reply.set_result(message)
        elif (timer := self._abandoned.pop(request_id, None)) is not None:
            timer.cancel()
            self._decide()
            if message.events:
                dropped = {"count": len(message.events), "first": message.events[0]}
                self._notify("events:dropped", dropped, Cancelled(_LATE))
        else:
            self._count_noise(line)

    def _on_chunk(self, request_id: str, message: Message) -> None:
        """Pass a chunk on. A full reader holds the module back only while nothing else is expected of it."""
        chunks = self._chunks.get(request_id)
        alone = len(self._waiting) == 1 and not self._abandoned
        if chunks is not None and not chunks.put(message.chunk, message.size) and alone:
            self._process.pause()
            chunks.when_room(self._process.resume)

    def _on_broken_line(self, line: bytes, fault: str) -> None:
        """Fail the call that a broken line was meant for; a line that names none is noise."""
        reply = self._waiting.pop(id_in(line) or "", None)
        if reply is None:
            self._count_noise(line)
            return
        self._answered = True
        details = {"line": line[:_SAMPLE].decode(errors="replace")}
        reply.set_exception(Internal(f"the module broke its contract: {fault}", details=details))

    def clues(self) -> dict[str, Any]:
        """Say what may explain that no answer comes: output that was no protocol, and the tail of stderr."""
        return {**({"noise": self._noise_so_far()} if self._noise else {}), **self._process.said()}

    def _noise_so_far(self) -> dict[str, Any]:
        return {"count": self._noise, "first": self._first_noise.decode(errors="replace")}

    def _decide(self) -> None:
        """Let the next requests through when no cancelled one is in its grace any more."""
        self.free = not (self.ended or self._abandoned)
        if not self.undecided:
            self.decided.set()

    def _count_noise(self, line: bytes) -> None:
        self._first_noise = self._first_noise or line.rstrip()[:_SAMPLE]
        self._noise += 1

    def _give_up(self, request_id: str) -> None:
        """Tell the module that nobody waits for a request any more, and give it a short grace to answer."""
        del self._waiting[request_id]
        try:
            self._process.write(CANCEL % request_id.encode(), now=True)
        except BrokenPipeError:
            self.closed_stdin()
            return
        self.decided.clear()
        self.free = False
        self._abandoned[request_id] = self._loop.call_later(CANCEL_GRACE, self._on_grace_over, request_id)

    def _on_grace_over(self, request_id: str) -> None:
        del self._abandoned[request_id]
        self.end(Unreachable(f"the module was killed: it did not answer a cancel within {CANCEL_GRACE:g} s"))

    def _fail(self, error: KernelError) -> None:
        """Fail every request in flight; no two callers share an exception."""
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply.set_exception(type(error)(error.message, details=error.details))


_EXIT_GRACE = 0.05
_LATE = "events: they came with the reply to a request that had been cancelled"
_SAMPLE = 200  # bytes of a line that was not protocol, shown


def _manner(outcome: dict[str, Any]) -> str:
    return f"killed by {outcome['signal']}" if "signal" in outcome else f"exit code {outcome['exit_code']}"
