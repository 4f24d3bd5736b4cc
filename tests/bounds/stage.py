"""Where a place is played: a kernel with its log, one module that sends too much, and a look at loop and memory.

Owns what every place asserts: the event loop is given to others, the memory stays bounded, only a ``KernelError`` is
raised, and the log is whole. It knows no place.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bounds.places import SIZES
from tests.gap import Meters
from tests.nats_transport.servers import Server

from amplifier_core import Kernel, KernelError, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from tests.bounds.places import Place

    from amplifier_core import Session

MESSAGE_BYTES = 32 * 1024 * 1024
GAP = 0.25  # seconds
GROWTH = 3 * MESSAGE_BYTES
_PROGRAM = Path(__file__).parents[1] / "modules" / "hostile.py"
_ECHO = Path(__file__).parents[1] / "modules" / "echo.py"
_M = "/mnt/tools/m"
_SECONDS = 8.0
_SYSTEM_CALLS = (
    "session.create", "session.fork", "session.end", "mount", "unmount", "mounts", "describe", "invoke", "emit",
    "register_hook", "context.get", "context.set_fragment",
)  # fmt: skip


class Seen(NamedTuple):
    """What came of a row: the longest gap of the loop in seconds, the growth of memory in bytes, and the error."""

    filler: str
    size: int
    gap: float
    growth: int
    code: str

    @property
    def fault(self) -> str:
        """Say what is not as it should be."""
        return ", ".join(["gap"] * (self.gap > GAP) + ["growth"] * (self.growth > GROWTH))


def play(place: Place, transport: str, rows: Sequence[tuple[str, int]], folder: Path) -> list[Seen]:
    """Play the rows of one place: its fillers and sizes.

    A gap that is too long is measured once more: if the host of a virtual machine took the CPU away, that is in the
    figure. A gap of the loop comes again.
    """
    seen = asyncio.run(_play(place, transport, rows, folder / "events.jsonl"))
    if again := [(row.filler, row.size) for row in seen if row.gap > GAP]:
        second = iter(asyncio.run(_play(place, transport, again, folder / "again.jsonl")))
        seen = [next(second) if row.gap > GAP else row for row in seen]
    return seen


def import_transports() -> None:
    """Import what the first mount imports, once a process: what that costs is no matter of any place."""
    for name in ("mcp._sdk", "http", "nats", "stdio"):
        importlib.import_module(f"amplifier_transport_{name}")


def picked(words: Sequence[str], transport: str, place: Place) -> list[tuple[str, int]]:
    """Give those rows of a place whose line has all the words."""
    rows = [(filler, size) for filler in place.fillers for size in SIZES]
    return [row for row in rows if all(word in f"{transport} {place.name} {row[0]} {row[1]}" for word in words)]


def play_picked(words: Sequence[str], where: tuple[str, Place]) -> list[Seen | str]:
    """Play the rows that the words pick. What fails otherwise is told in one line."""
    transport, place = where
    with tempfile.TemporaryDirectory() as folder:
        try:
            return [*play(place, transport, picked(words, transport, place), Path(folder))]
        except Exception as error:  # noqa: BLE001 - a place that fails in any way is a row, and the others are played
            return [repr(error)[:300]]


async def _play(place: Place, transport: str, rows: Sequence[tuple[str, int]], log: Path) -> list[Seen]:
    command = [sys.executable, "-I", "-S", str(_PROGRAM), transport, place.method, place.template, str(place.times)]
    seen = []
    async with Kernel(event_log=log, isolation=False) as kernel:
        session = await _session(kernel)
        if place.method in ("invoke", "tools/call") and transport != "hook":
            async with _module(transport, [*command, "text", "1"]) as descriptor:
                await session.mount("/mnt/tools", descriptor, trusted=True)
                for filler, size in rows:
                    call = session.invoke(_M, "go", {"filler": filler, "size": size}, timeout=_SECONDS)
                    seen.append(await _row(filler, size, call))
        else:
            for filler, size in rows:
                session = await _session(kernel)
                async with _module(transport, [*command, filler, str(size)]) as descriptor:
                    seen.append(await _row(filler, size, _mount_and_call(session, descriptor, transport)))
                    await kernel.session.end(session.session_id)
    with log.open("rb") as lines:
        for line in lines:
            json.loads(line)
    return seen


async def _session(kernel: Kernel) -> Session:
    """Make a session with a policy and a module that behaves."""
    session = await kernel.session.create(Plan("bounds"))
    await session.register_hook("policy:request", _allow)
    await session.mount("/mnt/tools", _echo(), trusted=True)
    return session


async def _mount_and_call(session: Session, descriptor: dict[str, Any], transport: str) -> None:
    """Mount the hostile module and call it; a hook is asked about a call to the other one."""
    await session.mount("/mnt/tools", descriptor, trusted=True, timeout=_SECONDS)
    if transport == "hook":
        await session.register_hook("policy:request", _M)
    await session.invoke("/mnt/tools/echo" if transport == "hook" else _M, "go", {}, timeout=_SECONDS)


async def _row(filler: str, size: int, doing: Awaitable[None]) -> Seen:
    meters, code = Meters(), ""
    async with meters:
        try:
            await doing
        except KernelError as error:
            code = error.code
            str(error), repr(error)
    return Seen(filler, size, meters.gap.worst, meters.growth.bytes, code)


async def _allow(_: Any) -> dict[str, str]:
    return {"decision": "allow", "scope": "session"}


def _echo() -> dict[str, Any]:
    command = [sys.executable, str(_ECHO), "--name", "echo"]
    return {"name": "echo", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "command": command}}


@asynccontextmanager
async def _module(transport: str, command: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Give the descriptor of the hostile module. A server is started, and ended."""
    words = [f"sys:{name}" for name in _SYSTEM_CALLS]
    fields: dict[str, Any] = {"name": "m", "kind": "tool", "capabilities": [] if "mcp" in transport else words}
    if transport in ("stdio", "mcp", "hook"):
        kind = "mcp" if transport == "mcp" else "stdio"
        yield {**fields, "transport": {"type": kind, "command": command}}
        return
    if transport == "nats":
        with tempfile.TemporaryDirectory() as folder:
            broker = Server(Path(folder), config=f"max_payload: {2 * MESSAGE_BYTES}").start()
            command[command.index("nats")] = f"nats:{broker.port}"
            try:
                async with _served(command) as port:
                    there = {"type": "nats", "servers": f"127.0.0.1:{port}", "subject": "m", "tls": False}
                    yield {**fields, "transport": there}
            finally:
                await asyncio.to_thread(broker.stop)  # it waits until the kernel has read what is on the way
        return
    async with _served(command) as port:
        kind = transport.partition("-")[0]
        yield {**fields, "transport": {"type": kind, "url": f"http://127.0.0.1:{port}/mcp"}}


@asynccontextmanager
async def _served(command: list[str]) -> AsyncIterator[int]:
    """Start a server, and give its port; end it."""
    server = await asyncio.create_subprocess_exec(*command, stdout=-1)
    try:
        yield int(await server.stdout.readline())  # type: ignore[union-attr]
    finally:
        server.kill()
        await server.wait()
