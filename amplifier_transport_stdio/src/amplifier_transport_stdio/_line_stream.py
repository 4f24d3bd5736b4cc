"""The stream of lines that a module writes: cut, bounded, and taken one after the other (protocol, section 3).

Owns the lines, and those that were no protocol. Where the bytes come from, a pipe or a socket, is in what derives from
it. It does not know what a line means, and which request it belongs to.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from amplifier_core import Internal
from amplifier_core.hookspecs import LARGE, LineBuffer, LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_core import KernelError
    from amplifier_core.hookspecs import Notify

_SAMPLE = 200  # bytes of a line that was not protocol, shown
_LINES_A_TURN = 500  # lines that are taken in one turn of the loop; the rest waits for the next ones
_NOISE_LINES = 100_000  # lines that are no protocol, blank ones too, after an answer
_NOISE_BYTES = 8 * 1024 * 1024


class LineReader(Protocol):
    """What a child process calls."""

    def on_line(self, line: bytes) -> None:
        """Take one whole line, with its line end."""

    async def on_large_line(self, line: bytes) -> None:
        """Take one of more than ``LARGE`` bytes. Nothing is read, and no other line is taken, until this returns."""

    def on_end(self, error: KernelError | None) -> None:
        """Send no more requests, and fail those in flight with the error. A second call may follow.

        ``None``: stdout was closed. The exit follows, and has the cause.
        """


class Write(Protocol):
    """The ``write`` of a stream."""

    def __call__(self, line: bytes, *, now: bool) -> None:
        """Send a line, or raise ``BrokenPipeError``. ``now``: nothing was sent that is not answered yet."""


class LineStream(ABC):
    """The lines of one module, and the way to it. What comes goes to ``lines``."""

    write: Write
    """How a line is sent."""
    heard: int = 0
    """How much the module has said beside the protocol: for a process, the bytes of stderr."""
    closed: str = "the module closed its stdin"
    """What is wrong when nothing can be written any more."""
    killed: str = "the module was killed"
    """What ``kill`` does."""

    def __init__(self, lines: LineReader, limit: int) -> None:
        self._on_line = lines.on_line
        self._on_large_line = lines.on_large_line
        self._on_end = lines.on_end
        self._queue: deque[bytes] = deque()  # a large line, or many, and those that came with them
        self._taking: asyncio.Task[None] | None = None  # what takes the queue
        self._buffer = LineBuffer(limit)
        self._noise = 0
        self._first_noise = b""
        self._lines_left = self._bytes_left = 0  # of noise, until the next answer
        self._drowned = False  # it is ended for its noise
        self.usable: bool = True
        """Whether requests may be sent, as far as is known."""
        self.held: bool = False
        """Whether the module is held back by ``pause``."""
        self.limit: int = limit
        """The bytes of the longest line."""
        self.answered: bool = True
        """Set with each answer: the noise before it is not held against the module any more."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the module may still answer what it was sent."""

    @abstractmethod
    def end(self) -> None:
        """End the stream, or its process, at once. ``on_end`` is called then, with the cause."""

    @abstractmethod
    def ending(self) -> None:
        """Note that it is ending by itself: the cause follows, and requests in flight fail with that."""

    @abstractmethod
    def read_on(self, *, on: bool) -> None:
        """Read what the module writes, or leave it where it is."""

    def kill(self, error: KernelError | None = None) -> None:
        """End it at once. Without an error, requests in flight fail with the end."""
        self._stop(error)
        self.end()

    def pause(self) -> None:
        """Leave the module's output where it is until ``resume``."""
        self.held = True
        self.read_on(on=False)

    def resume(self) -> None:
        """Read on, once no large line is being taken."""
        if self.held:
            self.held = False
            self._read_on()

    def clues(self, since: int = 0) -> dict[str, Any]:  # noqa: ARG002 - for what is said beside the protocol
        """Give what may explain a missing answer: output that was no protocol, and a line without an end."""
        noise = {"noise": self._noise_so_far()} if self._noise else {}
        partial = self._buffer.rest()[:_SAMPLE]
        return noise | ({"unended": partial.decode(errors="replace")} if partial else {})

    def explain(self, details: Mapping[str, Any], since: int, in_flight: int = 1) -> dict[str, Any]:
        """Give the details of an error to a request in flight."""
        return {**self.clues(since), **details} | ({"in_flight": in_flight} if in_flight > 1 else {})

    def count_noise(self, line: bytes) -> None:
        """Count a line that was no protocol."""
        self._first_noise = self._first_noise or line[:_SAMPLE].rstrip()
        self._noise += 1
        self._bound_noise(1, len(line))

    def report_noise(self, notify: Notify) -> None:
        """Report the lines that were no protocol, if there were any."""
        if self._noise:
            notify("module:noise", self._noise_so_far())

    def broke_contract(self, line: bytes, why: str, since: int = 0) -> Internal:
        """Make the error of a request whose reply is malformed."""
        details = {"line": line[:_SAMPLE].rstrip().decode(errors="replace"), **self.clues(since)}
        return Internal(f"the module broke its contract: {why}", details=details)

    # What reads the stream calls.

    def received(self, data: bytes) -> None:
        """Take what was read from stdout."""
        if self._drowned:
            return
        try:
            lines = self._buffer.feed(data)
        except LineTooLongError:
            message = f"the module wrote a message of more than {self.limit} bytes (limits.message_bytes)"
            self.kill(Internal(message, details={"limit": self.limit}))
            return
        if self._taking is not None or len(lines) > _LINES_A_TURN:
            self._queue.extend(lines)
            self._take_queue()
        elif len(lines) == 1 and len(lines[0]) <= LARGE:  # as a rule
            self._on_line(lines[0])
        elif lines:
            self._take_few(lines)
        if self._buffer.blank:
            self._bound_noise(self._buffer.blank, len(data))

    def _take_few(self, lines: list[bytes]) -> None:
        """Take lines at once up to a large one, which is queued with those that follow it."""
        for number, line in enumerate(lines):
            if len(line) > LARGE:
                self._queue.extend(lines[number:])
                self._take_queue()
                return
            self._on_line(line)

    async def taken(self) -> None:
        """Wait until all that was received has been taken."""
        if self._taking is not None:
            await asyncio.wait((self._taking,))

    def _stop(self, error: KernelError | None) -> None:
        self.usable = False
        self._on_end(error)
        if error is not None and self._taking is not None:  # nobody waits for it any more
            self._queue.clear()
            self._taking.cancel()

    def _take_queue(self) -> None:
        """Hold the module back while its large line, or its many lines, are taken, in a task."""
        if self._taking is None:
            self.read_on(on=False)
            self._taking = asyncio.get_running_loop().create_task(self._take_lines(), name="large line")

    async def _take_lines(self) -> None:
        """Take the queue. Everybody else has a turn after some lines, and while a large one is decoded."""
        try:
            while self._queue:
                await asyncio.sleep(0)
                for line in [self._queue.popleft() for _ in range(min(len(self._queue), _LINES_A_TURN))]:
                    if len(line) > LARGE:
                        await self._on_large_line(line)
                    else:
                        self._on_line(line)
        finally:
            self._taking = None
            self._read_on()

    def _read_on(self) -> None:
        if self._taking is None and not self.held:
            self.read_on(on=True)

    def _bound_noise(self, lines: int, size: int) -> None:
        """Kill a module that writes on and on, and answers nothing."""
        if self.answered:
            self.answered = False
            self._lines_left, self._bytes_left = _NOISE_LINES, _NOISE_BYTES
        self._lines_left -= lines
        self._bytes_left -= size
        if min(self._lines_left, self._bytes_left) < 0 and not self._drowned:
            self._drowned = True
            bound = f"{_NOISE_LINES} lines or {_NOISE_BYTES} bytes"
            self.kill(Internal(f"the module broke its contract: it wrote more than {bound} that are no protocol"))

    def _noise_so_far(self) -> dict[str, Any]:
        return {"count": self._noise, "first": self._first_noise.decode(errors="replace")}
