"""A thread that works for one event loop: it posts what it finds, and is joined by the loop when it has ended.

Owns the thread. What it does is written in its subclasses.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker(ABC):
    """A thread beside the running loop, started by ``start``; ``done`` is set in the loop when its work is."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _work(self) -> None:
        """Do it, in the thread."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def leave(self) -> None:
        """Wait for the last steps of a thread that is ``done``; leave another one to itself."""
        if self.done.done():
            self._thread.join()

    def _post(self, call: Callable[..., object], *args: Any) -> bool:
        """Have something called in the loop; tell whether there is one still."""
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self._loop.call_soon_threadsafe(call, *args)
            return True
        return False

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._post(self.done.set_result, None)
