"""The checks of a soak: the outcome of each invocation against the log, and what is left against what was there."""

import asyncio
import gc
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.conftest import children, descriptors

from amplifier_core import KernelError
from amplifier_core._protocol.event import DATA_LIMIT

OBJECTS = 3000
"""How many more objects the garbage collector may know: caches fill, while a leak grows with the calls."""
MEGABYTES = 24
"""By how much the resident memory may grow, since it fragments."""
REFUSED = "refused"
"""The outcome of a call in a session that has ended: it is no invocation, and has no event."""
PATIENCE = 20.0
"""Seconds until the connection of a server, or a call after its deadline, must have ended."""


class Ledger:
    """The outcome of each invocation as its caller saw it and as the log has it, by a tag in the arguments.

    Where the log does not show the arguments (too large, or a path without a module), the tag is empty. Then only the
    number of each outcome is compared.
    """

    def __init__(self, log: Path):
        self.log = log
        self.seen: Counter[tuple[str, str]] = Counter()
        self.codes: Counter[str] = Counter()
        self.faults: list[str] = []
        self._tags = 0
        self._seq = 0

    def tagged(self, args):
        """Put a tag of its own into an invocation's arguments."""
        self._tags += 1
        return {**args, "tag": f"t{self._tags}"}

    async def keep(self, path, args, call, seconds):
        """Await an invocation and note how it ended, and that it did in time; its failure is part of the soak."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        tag = args["tag"] if len(json.dumps(args)) < DATA_LIMIT - 100 else ""
        outcome = "cancelled"
        try:
            await call
            outcome = "ok"
        except KernelError as error:
            outcome = error.code
            if "module" not in error.details and error.message.endswith("has ended"):
                outcome = REFUSED
            if error.message.startswith(
                f"path: nothing is mounted at {path!r}"
            ):  # and not one that the module has passed on
                tag = ""
            if "the kernel broke" in error.message:
                self.faults.append(f"{tag}: {error} {error.details}")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            outcome = repr(error)
            self.faults.append(f"{tag}: raised {error!r}")
        finally:
            self.codes[outcome] += 1
            self.seen[tag, outcome] += outcome != REFUSED
            if loop.time() - began > seconds + PATIENCE:
                self.faults.append(f"{tag}: {outcome} after {loop.time() - began:.1f} s, of {seconds}")

    def balance(self):
        """Hold what the log says since the last time against what was seen, and begin anew."""
        logged: Counter[tuple[str, str]] = Counter()
        kinds: Counter[str] = Counter()
        for line in self.log.read_bytes().splitlines():
            event = json.loads(line)
            self._seq += 1
            if event["seq"] != self._seq:
                self.faults.append(f"seq {event['seq']} where {self._seq} was due")
                self._seq = event["seq"]
            kinds[event["event"]] += 1
            if event["event"] == "module:invoke" and "parent_span_id" not in event:
                logged[tag_of(event), "ok" if event["status"] == "ok" else event["error"]["code"]] += 1
        self.faults += [f"in the log, and not seen: {each}" for each in (logged - self.seen).items()]
        self.faults += [f"seen, and not in the log: {each}" for each in (self.seen - logged).items()]
        if kinds["module:start"] != kinds["module:exit"]:
            self.faults.append(f"{kinds['module:start']} processes started, {kinds['module:exit']} ended")
        self.seen.clear()
        os.truncate(self.log, 0)
        return kinds


def tag_of(event):
    """Give the tag in an invocation's arguments, if they are shown."""
    return event["data"].get("args", {}).get("tag", "")


class Remains:
    """What is there at one moment when nothing is in flight."""

    def __init__(self):
        gc.collect()
        self.tasks = {task.get_name() for task in asyncio.all_tasks()}
        self.children = children()
        self.descendants = descendants()
        self.descriptors = descriptors()
        self.objects = len(gc.get_objects())
        self.megabytes = resident()

    def beyond(self, before: "Remains"):
        """Say what there is more of than before; memory only where it is known what the program itself needs."""
        more = []
        for name in ("tasks", "children", "descendants"):
            if left := getattr(self, name) - getattr(before, name):
                more.append(f"{name}: {sorted(left)[:5]}")
        if len(self.descriptors) > len(before.descriptors):  # one that was opened anew may have another number
            more.append(f"descriptors: {len(before.descriptors)} and now {self.descriptors}")
        return more

    def grown(self, before: "Remains"):
        """Say by how much memory has grown, if by too much."""
        more = []
        if self.objects > before.objects + OBJECTS:
            more.append(f"objects: {before.objects} and now {self.objects}")
        if self.megabytes > before.megabytes + MEGABYTES:
            more.append(f"memory: {before.megabytes} MB and now {self.megabytes}")
        return more


def ours():
    """Give what marks every module of this soak, and whatever it starts: a variable's name and value."""
    return "AMPLIFIER_SOAK", str(os.getpid())


def descendants():
    """Name the processes that modules have left, wherever they went."""
    mark = "=".join(ours()).encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended meanwhile, or belongs to another user
            if mark in environ.read_bytes().split(b"\0"):
                found.add(environ.parent.name)
    return found


async def settled(before):
    """Wait until no more is there than before, or for as long as patience lasts; give what there is then."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while (now := Remains()).beyond(before) and loop.time() < end:
        await asyncio.sleep(0.05)
    return now


def resident():
    """Give the resident memory in MB, 0 where there is no /proc."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 2**20
    return 0
