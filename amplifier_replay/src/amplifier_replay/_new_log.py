"""The rest of a log: what is done when a run goes on, in the file of the run, with the numbers that follow.

Owns the file and the numbers. No other process may write to it meanwhile.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, structs

from amplifier_core import BadRequest

from ._log import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from amplifier_core.hookspecs import Sink

    from ._log import Part

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows
_encode = msgspec.json.encode
_BREAKS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2(?:\x80[\xa8-\xae]|\x81[\xa6-\xa9])")


class LaterSink:
    """A sink of the embedder's (``amplifier_core.hookspecs.Sink``) that gets what comes when the run goes on.

    It gets the lines as the log has them, with the numbers of the log.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines: deque[bytes] = deque()

    def put(self, line: bytes) -> None:
        """Keep a line until the kernel writes an event to its sinks, and tells of those that fail."""
        self._lines.append(line)

    def write(self, line: bytes) -> None:  # noqa: ARG002 - an event as the log does not have it
        """Write what the log has got meanwhile."""
        while self._lines:
            self._sink.write(self._lines.popleft())

    def close(self) -> None:
        """Close it."""
        self._sink.close()


class NewLog:
    """Appends events to the log of which a part was read. What is behind that, part of a line, is cut off.

    ``sinks`` get the same lines.

    Raises ``BadRequest`` if the log has grown since, or another process does the same.
    """

    def __init__(self, path: Path, part: Part, sinks: Sequence[LaterSink] = ()) -> None:
        self._sinks = sinks
        self._kernel = part.kernel
        self._seq = part.count
        self._part = part
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise BadRequest(f"{path}: another process goes on with this run") from error
        if os.fstat(self._file).st_size != part.found:
            os.close(self._file)
            raise BadRequest(f"{path}: expected the log of a kernel that has ended: it has grown since it was read")

    def begin(self, event: str, **told: Any) -> None:
        """Write that what comes before was replayed: ``kernel:resume`` or ``kernel:fork``."""
        os.ftruncate(self._file, self._part.size)
        data = Raw(_encode({"replayed": self._seq, "pid": os.getpid(), **told}))
        ts = time.time()
        took = max(0.0, round((ts - self._part.began) * 1000, 3))
        self.write(Entry(id="", ts=ts, event=event, component="kernel", duration_ms=took, data=data))

    def write(self, entry: Entry) -> None:
        """Write one event, with the next number."""
        self._seq += 1
        ident = f"evt_{int(entry.ts * 1e6):016x}{self._seq & 0xFFFFFFFF:08x}{self._kernel}"
        line = _encode(structs.replace(entry, id=ident, seq=self._seq)) + b"\n"
        if not (entry.module or "").isprintable():  # the path of a module that was not there
            line = _BREAKS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)
        for sink in self._sinks:
            sink.put(line)
        while line:
            line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
