"""The check of a sink: what it does with events as the kernel hands them over, and at its end.

Owns the rules. What the sink stored, its author reads: no two sinks keep events in the same way.
"""

from __future__ import annotations

import asyncio
import inspect
import statistics
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from amplifier_core._modules.thread import in_thread
from amplifier_core._protocol.errors import one_line, short
from amplifier_core._protocol.event import Event, event_id
from amplifier_core._protocol.json import decode_checked, encode_checked, printable_json

from ._check import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from amplifier_core.hookspecs import Sink

_SECTION = "7"
_EVENTS = 500
_LARGE = 256 * 1024  # bytes of a value, which an embedder may let into the log
_WRITE_MS = 5.0  # the longest median: the kernel's loop stands still meanwhile
_BROKEN_WRITES = 3
_SILENT = "neither write nor close raised: the kernel counts that as written"


async def check_sink(
    make: Callable[[], Sink],
    *,
    read: Callable[[], Iterable[bytes | str]] | None = None,
    broken: Callable[[], Sink] | None = None,
    seconds: float = 20.0,
) -> list[Check]:
    """Check a sink: it is given 500 events and closed twice, on an event loop in a thread of its own.

    ``make`` opens a sink that has nothing yet. ``read`` gives the envelopes that it has stored, in order, once it is
    closed: JSON as it was written, or written anew. ``broken`` opens one that can write nothing, such as a log on a
    full disk. What is left out is not looked at.

    Each rule is one finding, with the ``problem`` of a flaw. Whatever the sink does, this raises nothing and returns
    within ``seconds``: then it says what had not ended, and leaves the thread to itself.
    """
    probe = _Probe(make, read, broken)
    try:
        await asyncio.wait_for(in_thread(lambda: asyncio.run(probe.run())), seconds)
    except TimeoutError:
        return [*probe.found, Check(f"{probe.doing} ends", _SECTION, f"it had not ended after {seconds:g} s")]
    return probe.found


class _Probe:
    """One sink, on a loop of its own. ``doing`` is what it does now."""

    def __init__(
        self,
        make: Callable[[], Sink],
        read: Callable[[], Iterable[bytes | str]] | None,
        broken: Callable[[], Sink] | None,
    ) -> None:
        self._make, self._read, self._broken = make, read, broken
        self.found: list[Check] = []
        self.doing = "opening the sink"

    async def run(self) -> None:
        """Look at one rule after the other."""
        began = set(threading.enumerate())
        sink = self._try("it opens", self._make)
        if sink is None:
            return
        if problem := _not_plain(sink):
            self._add("write and close are plain functions", problem)
            return
        self._write_all(sink)
        self._close(sink)
        if self._read is not None:
            self.doing = "reading what was stored"
            self._add("what was written is there, in order", self._compare(self._read))
        if self._broken is not None:
            self._write_in_vain(self._broken)
        await asyncio.sleep(0)
        left: list[Any] = [*(asyncio.all_tasks() - {asyncio.current_task()}), *(set(threading.enumerate()) - began)]
        self._add("close leaves nothing running", f"this runs on: {short(left[0], 200)}" if left else "")

    def _add(self, name: str, problem: str) -> None:
        self.found.append(Check(name, _SECTION, problem))

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        """Call foreign code, and add what it raises; else what it gave."""
        try:
            given = call()
        except Exception as error:  # noqa: BLE001 - foreign code
            self._add(name, f"it raised {one_line(error)}")
            return None
        self._add(name, "")
        return given

    def _write_all(self, sink: Sink) -> None:
        self.doing = "write"
        spent: list[float] = []
        problem = ""
        for line in _lines():
            began = time.perf_counter()
            try:
                problem = problem or _of_coroutine(sink.write(line), "write")  # type: ignore[func-returns-value]
            except Exception as error:  # noqa: BLE001 - foreign code
                problem = problem or f"event {len(spent) + 1} raised {one_line(error)}: {_start_of(line)}"
            spent.append(time.perf_counter() - began)
        self._add("write takes each event", problem)
        median = statistics.median(spent) * 1000
        slow = "" if median <= _WRITE_MS else f"it took {median:.1f} ms, the median of {len(spent)}: use a queue"
        self._add("write does not hold the loop up", slow)

    def _close(self, sink: Sink) -> None:
        self.doing = "close"
        for name in ("close ends the sink", "close may be called twice"):
            given = self._try(name, sink.close)
            if problem := _of_coroutine(given, "close"):
                self.found[-1] = Check(name, _SECTION, problem)

    def _compare(self, read: Callable[[], Iterable[bytes | str]]) -> str:
        written = [decode_checked(line) for line in _lines()]
        try:
            stored = [decode_checked(line.encode() if isinstance(line, str) else line) for line in read()]
        except Exception as error:  # noqa: BLE001 - foreign code
            return f"reading it raised {one_line(error)}"
        if len(stored) != len(written):
            return f"{len(stored)} events of {len(written)} are there"
        differ = next((n for n, (one, other) in enumerate(zip(stored, written, strict=True), 1) if one != other), 0)
        return f"event {differ} is another one: {encode_checked(stored[differ - 1])[:200]!r}" if differ else ""

    def _write_in_vain(self, broken: Callable[[], Sink]) -> None:
        """Write where nothing can be written. A queue may hide it until the end: then ``close`` has to raise."""
        self.doing = "write to the broken sink"
        raised = False
        try:
            sink = broken()
        except Exception as error:  # noqa: BLE001 - foreign code
            self._add("a write that fails raises", f"the broken sink did not open: {one_line(error)}")
            return
        for _, line in zip(range(_BROKEN_WRITES), _lines(), strict=False):
            raised |= _raises(partial(sink.write, line))
        raised |= _raises(sink.close)
        self._add("a write that fails raises", "" if raised else _SILENT)


def _not_plain(sink: Sink) -> str:
    for name in ("write", "close"):
        method = getattr(sink, name, None)
        if not callable(method):
            return f"it has no {name}"
        if inspect.iscoroutinefunction(method):
            return f"{name} is async, and the kernel does not await it"
    return ""


def _of_coroutine(given: object, name: str) -> str:
    """Say that a method gave a coroutine, which is closed."""
    if not asyncio.iscoroutine(given):
        return ""
    given.close()
    return f"{name} is async, and the kernel does not await it"


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:  # noqa: BLE001 - foreign code
        return True
    return False


def _lines() -> Iterator[bytes]:
    """Give events as the kernel writes them: with and without each field, small and large, with what is escaped."""
    ended = {"code": "timeout", "message": "no answer", "details": {"phase": "module"}}
    for seq in range(1, _EVENTS + 1):
        ts = 1_760_000_000 + seq / 1000
        told: dict[str, Any] = {"data": {"n": seq}}
        if seq % 5 == 0:
            told |= {"module": "/mnt/tools/m", "status": "error", "duration_ms": 1.5, "error": ended}
        if seq % 7 == 0:
            told |= {"session_id": f"ses_{seq:016x}", "span_id": f"{seq:016x}"}
        if seq % 100 == 0:
            told["data"] = {"text": 'ä "\u2028\n' * 20, "large": "x" * _LARGE, "nested": [{"a": [None, True, 2**60]}]}
        event = Event(event_id(ts, seq, "c0ffee00"), ts, "artifact:write", "kernel", seq, **told)
        yield printable_json(encode_checked(event)) + b"\n"


def _start_of(line: bytes) -> str:
    return line[:100].decode()
