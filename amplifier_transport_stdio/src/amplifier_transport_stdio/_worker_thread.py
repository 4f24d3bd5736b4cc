"""A thread that works for one event loop. The loop joins it when its work is done.

Owns the thread. The work is its maker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class WorkerThread:
    """A thread beside the running loop; making one starts it. ``done`` is set, in the loop, at the end of its work."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
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

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._post(self.done.set_result, None)
