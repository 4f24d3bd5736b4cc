"""A thread that works for one event loop. The loop joins it when its work is done.

Owns the thread. The work is its subclasses'.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class WorkerThread(ABC):
    """A thread beside the running loop. ``done`` is set, in the loop, at the end of its work."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _work(self) -> None:
        """Do the work, in the thread."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def release(self) -> None:
        """Join the thread if it is ``done``; otherwise let it run on."""
        if self.done.done():
            self._thread.join()

    def _post(self, call: Callable[..., object], *args: Any) -> bool:
        """Schedule a call in the loop; return whether the loop is still open."""
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self._loop.call_soon_threadsafe(call, *args)
            return True
        return False

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._post(self.done.set_result, None)
