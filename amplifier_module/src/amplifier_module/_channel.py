"""Where the messages of one request go, until its reply.

Owns that a request has one reply, and none but its reply after a cancel. Bytes and sockets belong to the transports.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CANCELLED = b'{"ok":false,"error":{"code":"cancelled","message":"the caller gave up"}}'


class Channel(ABC):
    """The answers to one request. All methods may be called in any thread.

    ``stop`` is called when the caller gives up, in the thread that learns of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = False
        self.cancelled = False
        self.stop: Callable[[], None] | None = None

    def chunk(self, message: bytes) -> bool:
        """Send one chunk. False: the request has its reply, so that nobody waits for chunks."""
        with self._lock:
            if not self.answered:
                self._send(message, last=False)
            return not self.answered

    def finish(self, message: bytes) -> bool:
        """Send the reply. False: the request has one."""
        with self._lock:
            if self.answered:
                return False
            self.answered = True
            self._send(message, last=True)
        return True

    def cancel(self) -> None:
        """Answer at once that the request was cancelled, and stop what works on it."""
        if not self.finish(CANCELLED):
            return
        self.cancelled = True
        if self.stop is not None:
            self.stop()

    def attach(self, stop: Callable[[], None]) -> None:
        """Set what a cancel calls; call it now if the request was cancelled meanwhile."""
        self.stop = stop
        if self.cancelled:
            stop()

    @abstractmethod
    async def drain(self) -> None:
        """Let others run, and wait while chunks have not been taken."""

    @abstractmethod
    def _send(self, message: bytes, *, last: bool) -> None:
        """Send one message. Called under the lock, and not after the last one."""
