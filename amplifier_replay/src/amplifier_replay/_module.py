"""The modules of a replay: connections that run nothing, and answer when the log does, until the run goes on.

Owns the requests that wait for their answers. It knows no log: who replays it answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core import KernelError, Unreachable
from amplifier_core.hookspecs import Connection, Message, Usage

from ._isolation import launch_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Chunks, Confinement, Launch, Notify

    from ._live import LiveModule


class Asked(msgspec.Struct, eq=False):
    """One request that waits for its answer. ``None`` as the answer: the module is asked for real."""

    answer: asyncio.Future[Message | None]
    chunks: Chunks | None
    connection: RecordedConnection
    op: str = ""


class _Params(msgspec.Struct):
    span_id: str | None = None
    op: str = ""


_read_params = msgspec.json.Decoder(_Params).decode


class Modules:
    """All modules of one replay, and what they are asked."""

    def __init__(self) -> None:
        self.calls: dict[str, Asked] = {}
        """The invocations that wait, by their spans."""
        self.descriptions: dict[tuple[str, str], Asked] = {}
        """The modules that are asked to describe themselves, by session and path."""
        self.connections: dict[tuple[str, str], RecordedConnection] = {}
        """The connections by session and path."""
        self.open: set[RecordedConnection] = set()
        """All connections that are not closed."""
        self.live: bool = False
        """Whether the run goes on: modules answer themselves."""


class Told(msgspec.Struct, frozen=True):
    """What the log tells of one mount."""

    connection: Mapping[str, Any]
    failure: Mapping[str, Any]
    measured: bool


class RecordedConnection(Connection):
    """A module that says what it said, and is started when the run goes on."""

    unenforced: tuple[str, ...] = ()

    def __init__(
        self, modules: Modules, place: tuple[str, str], notify: Notify, told: Told, real: LiveModule | None
    ) -> None:
        self._modules = modules
        self._place = place
        self._notify = notify
        self.real = real
        self.started = False
        self._granted: Sequence[str] = ()
        self._live: Connection | None = None
        self._fault: KernelError | None = None
        self._exited = asyncio.Event()
        self._exited.set()
        self._measured = told.measured
        self._failure = told.failure  # of its mount
        self.local = told.connection.get("local", False)
        self.confined = told.connection.get("confined", False)
        self.unenforced = tuple(told.connection.get("unenforced", ()))
        self.endpoints = told.connection.get("endpoints", ())
        self._isolated = bool(told.connection.get("isolation"))
        modules.open.add(self)

    def launch(self) -> Launch:
        """Give a program that is never started. Raises what was said where no isolation works."""
        if self._failure and not self._isolated:
            raise failure_of(self._failure)
        return launch_at(self._place) if self._isolated or self.real is None else self.real.connection.launch()

    def clues(self) -> Mapping[str, Any]:
        """Give all that was told of the failure of its mount, or may explain that no answer comes now."""
        if self._live is not None:
            return self._live.clues()
        details: Mapping[str, Any] = self._failure.get("details", {})
        return details

    def usage(self, *, exact: bool) -> Usage | None:
        """Tell that the module uses nothing, if it was measured, until it runs."""
        if self._live is not None:
            return self._live.usage(exact=exact)
        return Usage(cpu_ms=0.0, memory_bytes=0) if self._measured else None

    def kill(self, error: KernelError) -> None:
        """End what runs, if anything does."""
        if self._live is not None:
            self._live.kill(error)

    async def start(self, granted: Sequence[str], confinement: Confinement | None) -> None:
        """Begin to answer. If the run has gone on meanwhile, start the module for real."""
        self.started, self._granted = True, granted
        if self._modules.live and self.real is not None:
            self._live = await self.real.start(granted)

    async def go_on(self, real: LiveModule) -> None:
        """Start the module for real. From now on it answers itself, or each request fails with the reason."""
        try:
            self._live = await real.start(self._granted)
        except KernelError as error:
            self._fault = error

    async def request(self, method: str, params: bytes, chunks: Chunks | None = None) -> Message:
        """Wait for the answer that the log has, or ask the module."""
        message = None if self._modules.live else await self._recorded(method, params, chunks)
        if message is not None:
            return message
        if self._live is None:
            why = self._fault.message if self._fault else "it is being started"
            raise Unreachable(f"it could not be started again: {why}")
        return await self._live.request(method, params, chunks)

    async def _recorded(self, method: str, params: bytes, chunks: Chunks | None) -> Message | None:
        if method == "health":
            return Message(ok=True, result={"status": "ok"})
        told = _read_params(params)
        asked = Asked(asyncio.get_running_loop().create_future(), chunks, self, told.op)
        if method == "describe":
            return await _kept(self._modules.descriptions, self._place, asked)
        if told.span_id is None:  # an observer is told of an event
            return Message(ok=True, result=None)
        return await _kept(self._modules.calls, told.span_id, asked)

    def report(self, event: str, data: Mapping[str, Any], error: KernelError | None) -> None:
        """Report what happened to the module."""
        self._notify(event, data, error)
        if event == "module:exit":
            self._exited.set()
        elif event == "module:start":
            self._exited.clear()

    def give_up(self) -> None:
        """Close at once: the replay has ended before the log."""
        self._exited.set()

    async def close(self) -> None:
        """End with the process that the log tells of: observers hear of it before they are closed."""
        self._modules.open.discard(self)
        if self.real is not None and self._live is not None:
            await self.real.close()
        elif self.local and not self._modules.live:
            await self._exited.wait()


async def _kept(waiting: dict[Any, Asked], key: Any, asked: Asked) -> Message | None:
    waiting[key] = asked
    try:
        return await asked.answer
    finally:
        if waiting.get(key) is asked:
            del waiting[key]


def failure_of(body: Mapping[str, Any]) -> KernelError:
    """Make the error that an event tells of. Its text is final: nothing is added to it."""
    error = KernelError.from_body(body["code"], body["message"], body.get("details"))
    error.replied = True
    return error
