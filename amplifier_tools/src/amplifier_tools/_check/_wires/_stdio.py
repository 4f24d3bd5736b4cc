"""STDIO, line by line: each lane is a process of its own, started as the kernel starts it.

Owns the requests on its stdin, its end, and the time of both. What its lines mean is for `_lines`.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import Host, encode
from amplifier_core.testing import confine
from amplifier_transport_stdio import Launcher, OrphanKiller, read_fields

from ._lane import Answer, Lane, Wire
from ._lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amplifier_core import KernelError, ModuleDescriptor
    from amplifier_core.hookspecs import Confinement
    from amplifier_tools._check._report import Report

    from ._lane import Request

__all__ = ["StdioWire"]

_A_SECOND = 1.0
_QUIET = 0.2  # seconds in which a line may come that nobody asked for
_NO_REQUEST = "r0"


class StdioWire(Wire):
    """A program on this host. ``isolation`` is that of ``Kernel``; ``trusted`` starts an ordinary process."""

    rules = ("MSG-03", "MSG-07", *(f"STDIO-{n:02}" for n in range(1, 12)), "CANCEL-01", "CANCEL-02")

    def __init__(self, descriptor: ModuleDescriptor, report: Report, isolation: str | None, *, trusted: bool) -> None:
        self._descriptor = descriptor
        self._report = report
        self._isolation = isolation
        self._trusted = trusted
        self._host = Host()
        self._fields = read_fields(descriptor)
        self._confinement: Confinement | None = None

    async def open(self) -> Lane:
        """Start a process. The first time, choose how it is confined."""
        if not self._report.runs_as:
            await self._choose()
        launcher = Launcher(self._descriptor, self._fields, _ignore, self._host.shared(OrphanKiller))
        launcher.grant(self._descriptor.capabilities, self._confinement)
        return StdioLane(launcher, self._descriptor.message_bytes, self._report)

    async def close(self) -> None:
        """End the watchdog of the processes."""
        await self._host.close()

    async def _choose(self) -> None:
        self._report.runs_as = "trusted: an ordinary process, as --trusted says"
        if not self._trusted:
            launch = self._fields.launch(self._descriptor.capabilities)
            isolation, self._confinement = await confine(launch, self._descriptor, isolation=self._isolation)
            self._report.runs_as = f"confined by {isolation.name} to the capabilities that it declares"


class StdioLane(Lane):
    """One process, from its start to its end."""

    cancel_rule = "CANCEL-01"

    def __init__(self, launcher: Launcher, limit: int, report: Report) -> None:
        super().__init__(report)
        self._loop = asyncio.get_running_loop()
        self._lines = Lines(limit, self.broke)
        self._limit = limit
        self._count = 0
        self._closing = False
        self._silent = False  # its stdout is closed
        self._ended = 0.0  # when the process was seen to have ended
        self._child = launcher.start(self)

    async def ask(self, request: Request) -> Answer:
        """Write a line, and wait for its reply."""
        self.during = request.subject
        request_id = self._send(request)
        try:
            got = await self.wait(self._lines.waiting[request_id].reply, request.seconds)
        except TimeoutError:
            self._on_silence(request, request_id)
            got = None
        if got is None:
            self._lines.give_up(request_id)
            self.usable = False
            return Answer()
        return Answer(reply=got[0], line=got[1])

    async def cancel(self, request: Request) -> bool:
        """Write a request and its cancel: the reply, whatever it is, comes within a second."""
        self.during = f"{request.subject}, cancelled"
        request_id = self._send(request)
        self._cancel(request_id)
        waiting = self._lines.waiting[request_id]
        done, _ = await asyncio.wait({waiting.reply}, timeout=_A_SECOND)
        if done and waiting.reply.result() is not None:
            if self._report.status("STDIO-04") != "broken":  # else another reply would come anyway
                self._lines.cancels.add(request_id)
            self._cancel(request_id)  # as if it had crossed the reply
            return True
        self.usable = False
        self.silent = not waiting.excused
        self._lines.give_up(request_id)
        return False

    async def cancel_nothing(self) -> None:
        """Cancel a request that was never sent."""
        self.during = "a cancel of what is not in flight"
        self._lines.cancels.add(_NO_REQUEST)
        self._cancel(_NO_REQUEST)

    async def close(self, *, seen: bool) -> bool:
        """End the process by the end of its stdin."""
        if self.usable and seen:
            await asyncio.sleep(_QUIET)
        seen = seen and self.usable
        self._closing, began = True, self._loop.time()
        if not seen:
            self._child.kill()
        self.during = "the end of its stdin"
        await self._child.close()
        self._lines.finish()
        return not seen or self._ended - began < _A_SECOND

    @contextmanager
    def blaming(self, blame: Mapping[str, str] | str) -> Iterator[None]:
        """Blame another rule, but not for what belongs to an earlier request."""
        self._lines.begin()
        with super().blaming(blame):
            yield

    def broke(self, name: str, problem: str, *, line: bytes = b"", op: str = "") -> None:
        """Report that a rule was broken. What is late is no fault of what is asked now."""
        blame = self._blame
        if self._lines.late:
            self._blame = None
        super().broke(name, problem, line=line, op=op)
        self._blame = blame

    def stderr(self) -> str:
        """Give the end of stderr."""
        return self._child.stderr().get("stderr", "")

    def _send(self, request: Request) -> str:
        self._count += 1
        request_id = f"r{self._count}"
        params = {} if request.params is None else {"params": request.params}
        self._lines.expect(request_id)
        self._write({"id": request_id, "method": request.method, **params})
        return request_id

    def _cancel(self, request_id: str) -> None:
        self._lines.cancelled += 1
        self._write({"method": "cancel", "params": {"id": request_id}})

    def _write(self, message: Mapping[str, Any]) -> None:
        try:
            self._child.write(encode(message, "request") + b"\n", now=True)
        except BrokenPipeError:  # it has ended, or closed its stdin: either is told when it ends
            self._child.closed_stdout()

    def _on_silence(self, request: Request, request_id: str) -> None:
        self._lines.finish()
        if not self._lines.waiting[request_id].excused:
            self.broke("MSG-01", f"no answer within {request.seconds:g} s")

    # What the process calls.

    def on_line(self, line: bytes) -> None:
        """Take one line."""
        self._lines.take(line)

    async def on_large_line(self, line: bytes) -> None:
        """Take one that is large."""
        self._lines.take(line)

    def on_end(self, error: KernelError | None) -> None:
        """Take the end: whoever waits gets nothing any more. It is called more than once."""
        if error is None:
            self._silent = True
            return
        if "pid" in error.details:
            self._ended = self._loop.time()
        if self.usable and not self._closing:
            self._lines.finish()
            self._explain(error)
            self.usable = False
        self._lines.end()

    def _explain(self, error: KernelError) -> None:
        """Say why the process has ended, or is killed: it is too late for a look at how it ends by itself."""
        if "limit" in error.details:
            self.broke("MSG-07", error.message)
        elif "pid" not in error.details:
            self.broke("STDIO-01", error.message)
        elif self._silent and "signal" in error.details:
            self.broke("STDIO-10", "it closed its stdout")
        else:
            self.broke("STDIO-10", error.message)


def _ignore(event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
    """Ignore what the launcher reports: the lane sees it."""
