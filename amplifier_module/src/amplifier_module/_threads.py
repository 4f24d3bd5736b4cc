"""The threads that run plain functions.

Owns how many there are, and what happens once all are held by functions whose callers have given up.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE = 1.0  # seconds in which a function whose caller gave up may still end


class Threads:
    """At most ``places`` threads, begun when they are needed. They are daemons: none holds up the end of the process.

    ``stuck`` is called when every place has been held for a second by a function whose caller has given up.
    """

    def __init__(self, places: int, stuck: Callable[[], None]) -> None:
        self._places = places
        self._stuck = stuck
        self._jobs: queue.SimpleQueue[tuple[Callable[..., None] | None, tuple[Any, ...]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._begun = 0
        self._watched: list[Callable[[], bool]] = []

    def submit(self, job: Callable[..., None], *args: object) -> None:
        """Run a job, which must not raise, in a thread that is free, a new one, or the next one that becomes free."""
        self._jobs.put((job, args))
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if self._begun == self._places:
                return
            self._begun += 1
            name = f"op {self._begun}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """Let each thread end after what it does. No job is submitted afterwards."""
        for _ in range(self._begun):
            self._jobs.put((None, ()))

    def watch(self, runs: Callable[[], bool]) -> None:
        """Look in a second whether a job whose caller gave up still ``runs``."""
        timer = threading.Timer(_GRACE, self._look, (runs,))
        timer.daemon = True
        timer.start()

    def _look(self, runs: Callable[[], bool]) -> None:
        with self._lock:
            self._watched = [each for each in (*self._watched, runs) if each()]
            held = len(self._watched)
        if held >= self._places:
            self._stuck()

    def _work(self) -> None:
        while True:
            job, args = self._jobs.get()
            if job is None:
                return
            job(*args)
            del job, args
            self._idle.release()
