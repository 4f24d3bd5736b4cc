"""What a call pays for being seen: its two events on disk and handed to amplifier-sink-otel, beyond on disk alone.

The sink's thread makes spans of them and sends them meanwhile, which is the program's time, but not that of the call.
"""

from __future__ import annotations

import functools
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import attrs
from rounds import Contender, blocking, compare
from table import Goal, Row

from amplifier_core import Kernel, Plan

if TYPE_CHECKING:
    from rounds import Measure, Pace

    from amplifier_core import Session

_EVENTS = ("agent:asked", "agent:answered")
_DATA = {"path": "out/report.txt", "bytes": 4096, "tags": ["draft", "text"]}
_AT_MOST = 50  # calls at once: they end before the sink's thread looks at the queue again


async def rows(pace: Pace) -> list[Row]:
    """Measure the two events of a call."""
    collector = HTTPServer(("127.0.0.1", 0), _Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    sink = {"type": "otel", "endpoint": f"http://127.0.0.1:{collector.server_port}"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            log = functools.partial(Kernel, event_log=Path(folder) / "log.jsonl")
            async with log() as alone, log(sinks=[sink]) as exported:
                calls = [_emitting(await each.session.create(Plan(goal="measure"))) for each in (alone, exported)]
                limit, ours = (Contender(n, calls[i], at_most=_AT_MOST) for i, n in enumerate(("limit", "ours")))
                samples = await compare((limit, ours), pace)
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    row = Row.of("two events to OpenTelemetry, beyond on disk", samples)
    more = median(one - other for one, other in zip(samples["ours"], samples["limit"], strict=True))
    return [attrs.evolve(row, ours=more * 1e6, goal=Goal(amount=3.0))]


class _Collector(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a message."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _emitting(session: Session) -> Measure:
    """Measure only emitting. Before each sample, untimed, the sink's thread has its rest."""

    def call() -> None:
        for event in _EVENTS:
            session.emit(event, _DATA)

    measure_emitting = blocking(call)

    async def measure(n: int) -> float:
        time.sleep(0.2)
        return await measure_emitting(n)

    return measure
