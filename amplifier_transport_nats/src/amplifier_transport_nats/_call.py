"""One request at the kernel's end: what its worker has sent, held to the protocol, until somebody reads it.

Owns the state of the request and its bounds. It publishes nothing by itself but a cancel, and knows no JSON.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from amplifier_core import Internal, KernelError, Unreachable

from . import _wire
from ._wire import COST, WINDOW, Assembly, word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.msg import Msg

    from amplifier_core.hookspecs import Chunks

_INBOX = "_INBOX."
_CHUNK = b'{"chunk":'  # as workers here write it
_GIVEN_UP_SECONDS = 5.0  # in which a worker answers a cancel


class Call:
    """One request. ``tell`` publishes a word to its worker, once it is known which one that is."""

    def __init__(
        self, subject: str, inbox: str, limit: int, tell: Callable[[str, Mapping[str, str]], None], now: float
    ) -> None:
        self.subject, self.inbox = subject, inbox
        self.heard = now  # when its worker said something, or the request was sent
        self.worker = ""  # the subject at which its worker listens for this request
        self.dropped = 0  # chunks that the worker dropped
        self.given_up = False
        self.until = float("inf")  # when nobody waits for what comes after a cancel
        self._limit, self._tell = limit, tell
        self._messages: deque[tuple[Mapping[str, str], bytes]] = deque()
        self._received = self._read = self._said = 0  # bytes, as the protocol counts them
        self._sent = 0  # bytes of the request that its worker has read
        self._parts = Assembly(limit)
        self._error: KernelError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def take(self, msg: Msg, now: float) -> None:
        """Take what came for this request. What another worker sends is nobody's."""
        if self.worker and msg.reply != self.worker and not (msg.headers and _wire.STATUS in msg.headers):
            return
        self.heard = now
        try:
            self._sort(msg)
        except ValueError as error:
            self.fail(Internal(f"{self.subject}: {error}"))
        self._wake()

    def fail(self, error: KernelError) -> None:
        """End the request with an error. What came before is read no more."""
        if self._error is None:
            self._error = error
            self._messages.clear()
        self._wake()

    def give_up(self, now: float) -> None:
        """Tell the worker that nobody waits any more. It answers all the same."""
        self.given_up, self.until = True, now + _GIVEN_UP_SECONDS
        if self.worker:
            self._tell(self.worker, _wire.CANCEL)

    def is_silent(self, now: float) -> bool:
        """Whether its worker says nothing, though all that it said was read: one that has answered says no more."""
        return not self._messages and now - self.heard > _wire.SILENCE_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether it has ended with an error."""
        return self._error is not None

    def late(self) -> bytes | None:
        """Give the answer to a request that was given up: empty if there is none any more, ``None`` if it may come.

        Chunks are dropped. A large answer, in parts, is not put together.
        """
        if self._error is not None:
            return b""
        while self._messages:
            headers, data = self._messages.popleft()
            self._read += len(data) + COST
            self.acknowledge()
            if word_of(headers)[0] == "failed":
                return b""
            if word_of(headers)[0] == "" and not data.startswith(_CHUNK):
                return data
        return None

    async def taken(self) -> None:
        """Wait until a worker has the request. Raises a ``KernelError`` if there is none."""
        while not self.worker and self._error is None:
            await self._wait()
        self._check()

    async def room(self, sent: int) -> bool:
        """Wait until the worker can take more of a request. ``False``: it has answered already."""
        while sent - self._sent > WINDOW - _wire.PART - COST and not self._messages and self._error is None:
            await self._wait()
        self._check()
        return not self._messages

    async def pause(self, chunks: Chunks) -> None:
        """Wait until a reader who is behind has room. Raises a ``KernelError`` if the request ends before."""
        has_room = False

        def go_on() -> None:
            nonlocal has_room
            has_room = True
            self._wake()

        chunks.when_room(go_on)
        while not has_room:
            self._check()
            await self._wait()

    async def message(self) -> bytes:
        """Give the next message, put together. Raises a ``KernelError`` if there will be none."""
        while True:
            while not self._messages:
                self._check()
                await self._wait()
            whole = self._put_together(*self._messages.popleft())
            if whole is not None:
                return whole

    def acknowledge(self) -> None:
        """Say what was read, if the worker may wait for that."""
        if self._read - self._said >= WINDOW // 2 and self.worker:
            self._said = self._read
            self._tell(self.worker, _wire.read(self._read))

    def _sort(self, msg: Msg) -> None:
        headers = msg.headers
        if headers and _wire.STATUS in headers and not msg.data:
            where = "its worker has gone" if self.worker else "no worker serves it"
            self.fail(Unreachable(f"{self.subject}: {where}"))
            return
        self._meet(msg.reply)
        word, number, _ = word_of(headers)
        if word == "read":
            self._sent = max(self._sent, number)
        elif word in ("", "part", "failed"):
            self._received += len(msg.data) + COST
            if self._received - self._said > WINDOW + COST + len(msg.data):
                raise ValueError(f"its worker sent more than {WINDOW} bytes that nobody had read")
            self._messages.append((headers or {}, msg.data))
            msg.data = b""  # nats-py keeps the last message until the next one comes

    def _meet(self, worker: str) -> None:
        """Learn which worker has the request."""
        if worker and not self.worker:
            if not worker.startswith(_INBOX):
                raise ValueError(f"expected a worker that listens in {_INBOX}, got {worker[:100]!r}")
            self.worker = worker
            if self.given_up:
                self._tell(worker, _wire.CANCEL)

    def _put_together(self, headers: Mapping[str, str], data: bytes) -> bytes | None:
        self._read += len(data) + COST
        try:
            word, offset, total = word_of(headers)
            if word == "failed":
                raise _failure(self.subject, *_wire.failure_of(data))
            if (count := headers.get(_wire.DROPPED, "")).isascii() and count.isdigit():
                self.dropped = int(count[:12])
            if word == "part":
                whole = self._parts.add(offset, total, data)
                self.acknowledge()
                return whole
            self._parts.check_whole(data)
        except ValueError as error:
            raise Internal(f"{self.subject}: {error}") from None
        return data

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _failure(subject: str, code: str, message: str, details: dict[str, object]) -> KernelError:
    """Make the error with which a worker says that its module gave no reply."""
    error = KernelError.from_body(code, message, details)
    if type(error) is KernelError:  # a module's own code comes in a reply
        return Internal(f"{subject}: its worker failed with the code {code[:64]!r}: {message}", details=details)
    return error
