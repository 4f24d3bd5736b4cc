"""A recorded run again: what an event costs in a replay, beside what it cost when the run was live.

The run is that of the agent example, with its own modules over STDIO, again and again in forks of one session. It is
recorded twice. In the first one the provider answers at once, so that its time is that of the kernel and of what the
modules do themselves: a replay runs the same kernel, and saves no more than the modules. The second one is the example
as it is: its provider says fifty words a second, as a model would. Most of what a replay saves is waiting then, and the
goal of 1/20 is held against that one.
"""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from table import Goal, Row

from amplifier_core import Kernel, Plan, load_descriptor

if TYPE_CHECKING:
    from rounds import Pace

    from amplifier_core import Event, ModuleDescriptor, Session

events = 20_000
"""How many events are recorded and replayed, at least; ``--events`` sets it."""

_AT_MOST = 5_000  # events with a provider that takes its time: more of them would be no faster and no slower
_QUICK = 1
_LIVE = "an event in a replay, to one of the live run"
_PATHS = (f"{_LIVE}, provider at once", f"{_LIVE}, the example as it is", "memory of a replay, at most")
_AGENT = Path(__file__).parents[2] / "examples" / "agent"
_PLACES = {
    "provider_script.json": "/mnt/providers",
    "orchestrator.json": "/mnt/orchestrators",
    "context.json": "/mnt/context",
    "files.json": "/mnt/tools",
    "grep.json": "/mnt/tools",
    "note.json": "/mnt/tools",
}
_PROVIDER = "import provider_script as p; p.PAUSE = 0; p.module.run()"


async def rows(pace: Pace) -> list[Row]:
    """Record both runs, and replay the first one."""
    if note := _missing():
        return [Row(path=path, note=note) for path in _PATHS]
    count = _QUICK if pace.quick else events
    with tempfile.TemporaryDirectory() as folder:
        agent, log = Path(folder) / "agent", Path(folder) / "run.jsonl"
        shutil.copytree(_AGENT, agent)
        (agent / "notes").mkdir(exist_ok=True)
        at_once = await _record(agent, log, count, at_once=True)
        slower = await _record(agent, Path(folder) / "slower.jsonl", min(count, _AT_MOST))
        replayed, peak = _replay(log, Path(folder) / "again.jsonl")
    limits = zip(_PATHS, (at_once, slower), (None, 1 / 20), strict=False)
    return [
        *[_row(path, live, replayed, goal) for path, live, goal in limits],
        Row(path=_PATHS[2], unit="MiB", ours=peak),
    ]


def _row(path: str, live: float, replayed: float, goal: float | None) -> Row:
    row = Row.of(path, {"limit": [live], "ours": [replayed]}, goal=Goal(goal))
    return attrs.evolve(row, more=f"{1 / live:,.0f} events a second live, {1 / replayed:,.0f} in the replay")


def _missing() -> str:
    programs = [program for program in ("node", "perl", "sh") if shutil.which(program) is None]
    packages = [name for name in ("amplifier_replay", "amplifier_module") if find_spec(name) is None]
    return f"{', '.join((*programs, *packages))} not installed" if programs or packages else ""


class _Counter:
    """A sink that counts the events."""

    count = 0

    def write(self, _: bytes) -> None:
        self.count += 1

    def close(self) -> None:
        pass


async def _record(agent: Path, log: Path, count: int, *, at_once: bool = False) -> float:
    """Record so many events of a run, whose provider may answer at once. Give the seconds of an event."""
    sink = _Counter()
    async with Kernel(event_log=log, recording=True, sinks=[sink]) as kernel:
        session = await kernel.session.create(Plan(goal="measure"))
        await _mount_all(session, agent, at_once=at_once)
        before, began = sink.count, time.perf_counter()
        while sink.count - before < count:
            await _ask(session)
        return (time.perf_counter() - began) / (sink.count - before)


async def _mount_all(session: Session, agent: Path, *, at_once: bool) -> None:
    """Mount what the example mounts: its policy first, and a person who says yes."""
    await session.mount("/mnt/hooks", _descriptor(agent / "policy.json"), trusted=True)
    await session.register_hook("policy:request", "/mnt/hooks/policy", priority=10)
    await session.register_hook("policy:request", _person, priority=20)
    for file, place in _PLACES.items():
        descriptor = _descriptor(agent / file)
        if at_once and descriptor.kind == "provider":
            command = [sys.executable, "-c", _PROVIDER]
            descriptor = attrs.evolve(descriptor, transport={**descriptor.transport, "command": command})
        await session.mount(place, descriptor, trusted=True)


def _descriptor(file: Path) -> ModuleDescriptor:
    """Read a descriptor. Its Python is this one, which has the kit."""
    descriptor = load_descriptor(file)
    command = [sys.executable if word == "python3" else word for word in descriptor.transport["command"]]
    return attrs.evolve(descriptor, transport={**descriptor.transport, "command": command})


async def _person(event: Event) -> dict[str, Any]:
    if event.data["action"] == "invoke" and (event.data["path"], event.data["op"]) == ("/mnt/tools/note", "write"):
        return {"decision": "allow", "reason": "a person said yes"}
    return {"decision": "abstain", "scope": "session"}


async def _ask(session: Session) -> None:
    """Let the agent work towards a goal, in a fork: each time from the same beginning."""
    async with await session.fork() as fork:
        stream = fork.stream("/mnt/orchestrators/loop", "run", {"goal": "measure", "compact_above": 1500})
        async for _ in stream:
            pass
        await stream.result()


def _replay(log: Path, new: Path) -> tuple[float, float]:
    """Replay a log. Give the seconds of an event, and the most memory in MiB."""
    command = [sys.executable, str(Path(__file__).with_name("replayer.py")), str(log), str(new)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert filecmp.cmp(log, new, shallow=False)
    with log.open("rb") as lines:
        count = sum(1 for _ in lines)
    return told["seconds"] / count, told["peak"]
