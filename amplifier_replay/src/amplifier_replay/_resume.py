"""Resuming: a run whose kernel was killed is replayed up to there, and goes on. So does a fork of a run.

Owns the change from the one to the other. `_replay` owns the way there.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from amplifier_core import BadRequest, KernelError, load_descriptor
from amplifier_core.testing import choose_isolation

from ._acts import STARTS
from ._live import Live
from ._log import check_killed, copy_part
from ._new_log import LaterSink, NewLog
from ._real import Real
from ._replay import Replay

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from amplifier_core import Kernel, ModuleDescriptor, Session
    from amplifier_core.hookspecs import Connection, Isolation, Sink

    from ._live import Hook
    from ._log import Entry

    _Choice = str | Mapping[str, Any] | Isolation | Literal[False] | None


class OpenCall(msgspec.Struct, frozen=True, eq=False):
    """A call of the embedder's that had not ended. It goes on."""

    session_id: str
    path: str
    op: str
    args: dict[str, Any]
    span_id: str
    task: asyncio.Task[Any]
    """Awaiting it gives the result, or raises the ``KernelError`` of the call."""


class Resumed(msgspec.Struct, frozen=True, eq=False):
    """A run that goes on."""

    kernel: Kernel
    sessions: Mapping[str, Session]
    """The sessions that the embedder has made, by id."""
    calls: list[OpenCall]
    """The embedder's calls that were open, in the order of their beginning."""


@asynccontextmanager
async def resume(  # noqa: PLR0913 - the embedder's choices, each by its name
    path: Path | str,
    *,
    hooks: Mapping[str, Hook] | None = None,
    descriptors: Mapping[str, ModuleDescriptor | Path | str] | None = None,
    trusted: bool = False,
    isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None,
    isolations: Mapping[str, str | Mapping[str, Any] | Isolation] | None = None,
    sinks: Sequence[Sink] = (),
    open_transport: Callable[..., Connection | None] | None = None,
    timeout: float | None = None,
    policy_timeout: float | None = None,
) -> AsyncGenerator[Resumed, None]:
    """Go on with a recorded run whose kernel was killed. A context manager, which gives a ``Resumed``.

    The run is replayed up to its end: sessions, mounts, grants, fragments and each call that was open are as they were.
    Then the modules are started, and answer themselves. What had been answered is not asked again. A call that had been
    sent and not answered is repeated if its descriptor says that the operation is ``idempotent``; else it fails with
    ``unreachable``. What policy was asked and had not answered is asked again. The log goes on in its file.

    ``hooks`` are the embedder's own hooks and observers, by the names that ``hook:register`` has; a policy hook that is
    missing denies. ``descriptors`` replace those of the recording, by path, such as those with secrets. ``trusted``
    runs those modules on this host without isolation that ran so. ``isolation`` and ``open_transport`` are those of
    ``Kernel``; so are ``timeout`` and ``policy_timeout``, without which those of the recording hold. Each call that was
    open has that time anew. ``isolations`` are others, by the names of isolations that ``mount:add`` has: each confines
    the modules that were confined by the one of that name. ``sinks`` are objects with ``write`` and ``close``,
    which get the lines that come to the log from now on.

    Raises ``UnusableLog`` for what is no such log, and ``Difference`` where the replay does something else: then
    nothing was started, and the log is as it was. ``BadRequest``: somebody else writes to it.
    """
    times = {"timeout": timeout, "policy_timeout": policy_timeout}
    more = {"trusted": trusted, "open_transport": open_transport, "again": False, "sinks": _later(sinks), **times}
    live = await _chosen(hooks or {}, descriptors or {}, isolation, isolations or {}, more)
    async with _going_on(Path(path), live, "kernel:resume") as run:
        yield run


@asynccontextmanager
async def fork(  # noqa: PLR0913 - as above
    path: Path | str,
    until: int,
    to: Path | str,
    *,
    hooks: Mapping[str, Hook] | None = None,
    descriptors: Mapping[str, ModuleDescriptor | Path | str] | None = None,
    trusted: bool = False,
    isolation: str | Mapping[str, Any] | Isolation | Literal[False] | None = None,
    isolations: Mapping[str, str | Mapping[str, Any] | Isolation] | None = None,
    sinks: Sequence[Sink] = (),
    open_transport: Callable[..., Connection | None] | None = None,
    timeout: float | None = None,
    policy_timeout: float | None = None,
) -> AsyncGenerator[Resumed, None]:
    """Go on live from the middle of a recorded run, in a log of its own. A context manager, which gives a ``Resumed``.

    The run is replayed up to the event with the number ``until``. ``to`` is a new file: it begins with these events,
    then has ``kernel:fork``, and goes on. What had been sent by then and not answered is sent again, whatever its
    descriptor says: what comes after that event is done a second time. All else is as for ``resume``.

    Raises what ``resume`` does; ``UnusableLog`` if that event is not before the end, ``BadRequest`` if ``to`` exists or
    a descriptor or a hook is for what the run had not mounted or registered by then. Then there is no new file.
    """
    path, to = Path(path), Path(to)
    if not isinstance(until, int) or until < 1:
        raise BadRequest(f"until: expected the number of an event, got {until!r}")
    times = {"timeout": timeout, "policy_timeout": policy_timeout}
    more = {"trusted": trusted, "open_transport": open_transport, "again": True, "sinks": _later(sinks), **times}
    live = await _chosen(hooks or {}, descriptors or {}, isolation, isolations or {}, more)
    copy_part(path, until, to)
    size = to.stat().st_size
    try:
        async with _going_on(to, live, "kernel:fork", log=path.name) as run:
            yield run
    finally:
        if to.stat().st_size == size:  # it has not gone on
            to.unlink()


@asynccontextmanager
async def _going_on(path: Path, live: Live, event: str, **told: Any) -> AsyncGenerator[Resumed, None]:
    part = check_killed(path)
    with (
        closing(NewLog(path, part, live.sinks)) as new,
        closing(Replay(path, Real({}, trusted=False), live=live, part=part)) as run,
    ):
        async with run.kernel:
            try:
                await run.follow(lambda _: None)
                await run.settle()
                calls = [_open(*call) for call in run.embedder.calls.values() if call[0].event in STARTS]
                await run.go_on(live, new, event, **told)
                yield Resumed(run.kernel, run.embedder.sessions, calls)
            finally:
                await run.give_up()


def _open(entry: Entry, task: asyncio.Task[Any]) -> OpenCall:
    data = entry.read()
    return OpenCall(entry.session_id or "", entry.module or "", data["op"], data["args"], entry.span_id or "", task)


async def _chosen(
    hooks: Mapping[str, Hook],
    descriptors: Mapping[str, ModuleDescriptor | Path | str],
    isolation: _Choice,
    isolations: Mapping[str, str | Mapping[str, Any] | Isolation],
    more: Mapping[str, Any],
) -> Live:
    """Read the descriptors, and choose the isolations."""
    read = {place: _read(each) for place, each in descriptors.items()}
    others = {name: await _choose(each) for name, each in isolations.items()}
    return Live(hooks=hooks, descriptors=read, isolation=await _choose(isolation), isolations=others, **more)


async def _choose(isolation: _Choice) -> Isolation | KernelError:
    try:
        return await choose_isolation(isolation)
    except KernelError as error:
        return error


def _later(sinks: Sequence[Sink]) -> list[LaterSink]:
    """Raise ``BadRequest`` for what is no sink."""
    for each in sinks:
        if not (hasattr(each, "write") and hasattr(each, "close")):
            raise BadRequest(f"sinks: expected objects with write and close, got {each!r}")
    return [*map(LaterSink, sinks)]


def _read(descriptor: ModuleDescriptor | Path | str) -> ModuleDescriptor:
    return load_descriptor(descriptor) if isinstance(descriptor, str | Path) else descriptor
