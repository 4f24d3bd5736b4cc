"""Two programs: approvals.py ask LOG LEDGER COUNT asks a person for many approvals, approvals.py answer LOG goes on.

The person of the first one has answered some, and leaves the rest open: when all are, the program says so, and waits.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.replay.test_compare import program

from amplifier_core import Kernel, KernelError
from amplifier_replay import resume

LEDGER, CALLER = "/mnt/tools/ledger", "/mnt/orchestrators/caller"
OF_A_TURN = 20  # calls


def is_early(n):
    """Tell what the person has answered before the kernel is killed."""
    return n % 5 == 0


def is_denied(n):
    return n % 10 in (0, 3)


def writing(n):
    return {"path": LEDGER, "op": "write", "args": {"n": n}}


def decision(n):
    return {"decision": "deny" if is_denied(n) else "allow", "reason": "a person said so"}


class Person:
    """Answers what is early, and nothing else."""

    def __init__(self, count):
        self._left = {"asked": count, "ended": sum(map(is_early, range(count)))}
        self.is_done = asyncio.Event()
        """Whether all that is early has ended, and all else is open."""

    async def decide(self, event):
        """Allow what is no call of the ledger."""
        if event.data["action"] != "invoke" or event.data["path"] != LEDGER:
            return {"decision": "allow"}
        self._count("asked")
        n = event.data["args"]["n"]
        if not is_early(n):
            await asyncio.Event().wait()
        return decision(n)

    async def hear(self, event):
        """Hear of the end of a call."""
        if event.module == LEDGER:
            self._count("ended")

    def _count(self, what):
        self._left[what] -= 1
        if not any(self._left.values()):
            self.is_done.set()


async def ask(log, ledger, count):
    """Begin all calls: half of them by the program itself, half of them by a module, in turns."""
    person = Person(count)
    async with Kernel(event_log=log, isolation=False, recording=True, policy_timeout=3600, timeout=3600) as kernel:
        session = await kernel.session.create({"goal": "test", "inputs": {}})
        await session.register_hook("policy:request", person.decide)
        told = program("ledger.py", "ledger")
        told["transport"]["command"] = [*told["transport"]["command"][:2], ledger]
        await session.mount("/mnt/tools", told, trusted=True)
        caller = program("caller.py", "caller", "orchestrator", ["sys:invoke:*"])
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        await session.register_hook("module:invoke", person.hear)
        begin = [session.invoke(**writing(n)) for n in range(count // 2)]
        for first in range(count // 2, count, OF_A_TURN):
            syscalls = [{"name": "invoke", "args": writing(n)} for n in range(first, min(first + OF_A_TURN, count))]
            begin.append(session.invoke(CALLER, "call", {"syscalls": syscalls}))
        tasks = asyncio.gather(*begin, return_exceptions=True)
        await person.is_done.wait()
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await tasks


async def answer(log):
    """Go on, with a person that answers. Print the numbers of the answered calls, and those of the denied ones."""
    asked, done = [], []

    async def answers(event):
        if event.data["path"] == LEDGER:
            asked.append(event.data["args"]["n"])
            await asyncio.sleep(0)
            return decision(event.data["args"]["n"])
        return {"decision": "allow"}

    async with resume(log, hooks={"Person.decide": answers}, trusted=True) as run:
        for call in run.calls:
            done += await outcome(call)
    sys.stdout.write(json.dumps({"asked": asked, "done": done}))


async def outcome(call):
    try:
        result = await call.task
    except KernelError as error:
        return [[call.args["n"], error.code]]
    if call.path == LEDGER:
        return [[result["n"], "ok"]]
    numbers = [each["args"]["args"]["n"] for each in call.args["syscalls"]]
    replies = [each["error"]["code"] if "error" in each else "ok" for each in result["results"]]
    return [list(each) for each in zip(numbers, replies, strict=True)]


if __name__ == "__main__":
    role, log, *more = sys.argv[1:]
    asyncio.run(ask(Path(log), more[0], int(more[1])) if role == "ask" else answer(Path(log)))
