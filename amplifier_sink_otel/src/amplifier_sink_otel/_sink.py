"""The sink: takes lines from the kernel, and makes spans of them in a thread.

Owns the thread and its end. The SDK, whose import takes half a second, is imported there.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from amplifier_core import KernelError
from amplifier_core.hookspecs import watch_forks

from ._queue import Lines

if TYPE_CHECKING:
    from ._options import Options
    from ._pipeline import Pipeline

_log = logging.getLogger("amplifier_sink_otel")
_CLOSE_SECONDS = 5.0
_STOP_SECONDS = 1.0  # for a thread whose connection was ended
_TICK = 0.05  # seconds between two looks at the queue: to wake the thread for each line would cost the loop more


class OtelSink:
    """The events of one kernel as spans and metrics.

    What the collector does not take is lost here alone: the kernel's log is another sink.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lines = Lines(options.queue)
        self.write = self._lines.put  # a method of this class would only cost another call
        self._closing = threading.Event()
        self._pipeline: Pipeline | None = None
        self._thread = threading.Thread(target=self._run, name="amplifier-sink-otel", daemon=True)
        self._is_closed = self._is_stopped = False
        self._thread.start()
        watch_forks(self)

    def close(self) -> None:
        """Send what waits, for at most five seconds. What is dropped is counted, and told by logging.

        With the option ``required``, ``KernelError`` tells it.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._closing.set()
        self._lines.end()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._is_stopped = True
            until = time.monotonic() + _STOP_SECONDS
            while self._thread.is_alive() and time.monotonic() < until:
                if self._pipeline is not None:
                    self._pipeline.exporter.stop()
                self._thread.join(_TICK)
        if lost := self._lost():
            text = f"otel: {lost} events are not at {self._options.where}"
            if self._options.required:
                raise KernelError(text)
            _log.warning("%s", text)

    def after_fork(self) -> None:
        """Close the connection in the child. The thread does not run there, and nothing is sent."""
        self._is_closed = True
        if self._pipeline is not None:
            self._pipeline.exporter.after_fork()

    def _lost(self) -> int:
        """Count the events that are not at the collector, or not known to be there."""
        made = 0 if self._pipeline is None else self._pipeline.lost + self._pipeline.waiting
        return self._lines.dropped + len(self._lines) + made

    def _run(self) -> None:
        from ._pipeline import Pipeline

        pipeline = self._pipeline = Pipeline(self._options, self._closing)
        tick = min(_TICK, self._options.interval)
        while not self._closing.is_set():
            self._drain(pipeline, self._lines.wait())
            due = time.monotonic() + self._options.interval
            while not self._closing.wait(tick) and time.monotonic() < due:
                self._drain(pipeline, self._next())
            pipeline.send(dropped=self._lines.dropped)
        self._drain(pipeline, self._next())
        pipeline.finish(dropped=self._lines.dropped)

    def _drain(self, pipeline: Pipeline, line: bytes | None) -> None:
        """Make spans of a line and of those that wait behind it."""
        while line is not None:
            pipeline.add(line)
            time.sleep(0)  # or the event loop would wait for the interpreter, up to 5 ms for each of its steps
            line = self._next()

    def _next(self) -> bytes | None:
        return None if self._is_stopped else self._lines.take()
