"""Kernels that are killed, one fork of this process after the other, each at a moment that nobody chose.

killed.py WHAT FOLDER ROUNDS SEED: WHAT is `emit`, `rotate` or `invoke`. Round N leaves the log, FOLDER/N.jsonl, and the
numbers that the kernel said after the calls with them had returned, FOLDER/N.said.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
from pathlib import Path

from amplifier_core import Kernel, Plan

ECHO = Path(__file__).parents[1] / "modules" / "misbehaving.py"
CALLERS = 4


async def emit(log, said, **options):
    """Emit for ever; the loop has no turn in between."""
    async with Kernel(event_log=log, **options) as kernel:
        session = await kernel.session.create(Plan("be killed", {}))
        for n in itertools.count():
            session.emit("my:event", {"n": n, "pad": "x" * (n % 500)})
            os.write(said, b"%d\n" % n)


async def rotate(log, said):
    """Emit for ever, into a new file after every few events."""
    await emit(log, said, event_log_bytes=2000)


async def invoke(log, said):
    """Invoke a module for ever, by several callers at once."""
    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("be killed", {}))
        command = [sys.executable, "-S", str(ECHO), "m", "never", "pass"]
        transport = {"type": "stdio", "command": command, "env": {"AMPLIFIER_TEST_FAULT": str(log.parent)}}
        fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
        await session.mount("/mnt/tools", fields, trusted=True)
        numbers = itertools.count()

        async def call():
            for n in numbers:
                await session.invoke("/mnt/tools/m", "echo", {"n": n})
                os.write(said, b"%d\n" % n)

        await asyncio.gather(*(call() for _ in range(CALLERS)))


def be_killed(what, log, said):
    """Be the kernel."""
    try:
        asyncio.run(what(log, said))
    finally:
        os._exit(1)


def kill(what, log, enough):
    """Fork a kernel, kill it when it has said so much, and give all that it said."""
    mine, its = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(mine)
        be_killed(what, log, its)
    os.close(its)
    said = b""
    while len(said) < enough and (more := os.read(mine, 65536)):
        said += more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(mine, 65536):
        said += more
    os.close(mine)
    return said


def main():
    """Play the rounds."""
    what = {"emit": emit, "rotate": rotate, "invoke": invoke}[sys.argv[1]]
    folder, rounds, seed = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    moments = random.Random(seed)
    for n in range(rounds):
        said = kill(what, folder / f"{n}.jsonl", moments.randrange(1, 2000))
        (folder / f"{n}.said").write_bytes(said)


if __name__ == "__main__":
    main()
