"""A soak: random calls and faults at once. Afterwards nothing may be left, and the log must be complete.

    python -m tests.soak.run [SECONDS (600)] [SEED]

It runs rounds on one kernel. At the end of a round it ends all sessions. Then tasks, processes and file descriptors
are those of before, and memory is that after the first round. The log has no gap in `seq`, and for each invocation the
outcome that its caller saw. A seed repeats the choices, not the timing.
"""

import argparse
import asyncio
import faulthandler
import math
import random
import sys
import tempfile
from pathlib import Path

from tests.soak.ledger import PATIENCE, Ledger, Remains, settled
from tests.soak.world import TOOLS, Faulty, World, stdio

from amplifier_core import Kernel, Plan

ROUND = 30.0
"""Seconds of one round, at most; two rounds at least."""
ACTORS = 12


async def soak(seconds, seed, log, report):
    """Soak a kernel and give a list of what is wrong."""
    dice = random.Random(seed)
    faulty, ledger = Faulty(), Ledger(log)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: ledger.faults.append(f"loop: {context}"))
    before = Remains()
    await faulty.start(3)
    async with Kernel(event_log=log, policy_timeout=0.2, observer_queue=64) as kernel:
        first, rounds = None, max(2, math.ceil(seconds / ROUND))
        await warm_up(kernel)
        at_rest = Remains()
        for n in range(rounds):
            await play(World(kernel, ledger, dice, faulty), seconds / rounds)
            now = await settled(at_rest)
            kinds = ledger.balance()
            ledger.faults += now.beyond(at_rest)
            first = first or now
            ledger.faults += now.grown(first)
            report(f"round {n + 1}: {sum(kinds.values())} events, {now.objects} objects, {now.megabytes} MB")
            if ledger.faults:
                break
    await faulty.stop()
    ledger.faults += (await settled(before)).beyond(before)
    report(", ".join(f"{code} {count}" for code, count in ledger.codes.most_common()))
    return ledger.faults


async def warm_up(kernel):
    """Make the kernel start what it keeps until its end, such as the process that watches the modules."""
    session = await kernel.session.create(Plan(goal="soak", inputs={}))
    await session.mount(TOOLS, stdio("echo.py", "first"), trusted=True)
    await kernel.session.end(session.session_id)


async def play(world, seconds):
    """Let the actors act for so many seconds, then end every session."""
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.timeout(seconds + 3 * PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(ACTORS):
            _ = group.create_task(world.act(until))
    await world.end_all()


def main():
    """Soak for the given time. The exit status says whether anything is wrong."""
    parser = argparse.ArgumentParser(description="Soak a kernel in random faults.")
    parser.add_argument("seconds", nargs="?", type=float, default=600.0)
    parser.add_argument("seed", nargs="?", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    faulthandler.dump_traceback_later(options.seconds + 10 * PATIENCE, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "events.jsonl")
        faults = asyncio.run(soak(options.seconds, options.seed, log, lambda line: print(line, flush=True)))
    faulthandler.cancel_dump_traceback_later()
    for fault in faults[:20]:
        print(fault)
    print(f"{len(faults)} faults with seed {options.seed}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
