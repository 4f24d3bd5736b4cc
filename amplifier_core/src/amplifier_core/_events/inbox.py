"""The inbox: events that other threads emit, recorded on the event loop in the order in which they came.

Owns the way from those threads to the loop. It does not know what an event is.
"""

from __future__ import annotations

from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import BadRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_AT_ONCE = 500  # calls between two turns of the loop


class Inbox:
    """Calls that other threads leave for the loop of the thread that makes it. Until it is closed none is lost.

    It has no lock, since whoever emits in a finalizer may be in the middle of another call: appending to a deque and
    taking from it are one step each.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread: int = get_ident()
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._closed = ""

    def leave(self, call: Callable[[], None]) -> None:
        """Leave a call. Raises ``BadRequest`` if nobody would make it: the inbox is closed, or the loop."""
        self._calls.append(call)
        if self._closed:
            self._take_back(call, self._closed)
        elif not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._make_some)
            except RuntimeError:
                self._woken = False
                self._take_back(call, "the kernel's event loop is closed")

    def make_all(self) -> None:
        """Make every call that was left so far."""
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def close(self, why: str) -> None:
        """Make the calls that were left. Later ones are refused, with this reason."""
        self._closed = why
        while self._calls:
            self._calls.popleft()()

    def _make_some(self) -> None:
        self._woken = False
        for _ in range(min(len(self._calls), _AT_ONCE)):
            self._calls.popleft()()
        if self._calls and not self._woken:
            self._woken = True
            self._loop.call_soon(self._make_some)

    def _take_back(self, call: Callable[[], None], why: str) -> None:
        try:
            self._calls.remove(call)
        except ValueError:  # ``close`` has made it
            return
        raise BadRequest(why)
