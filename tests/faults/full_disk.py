"""A kernel whose log is on a disk that is full, and then has room again; run where FOLDER is a small disk.

full_disk.py FOLDER OTHER: a second log, OTHER/whole.jsonl, is elsewhere; OTHER/cut.jsonl is a copy of what the disk
took, and OTHER/lost how many events the kernel's close says that it did not.
"""

import asyncio
import shutil
import sys
from pathlib import Path

from amplifier_core import Internal, Kernel, Plan

FOLDER, OTHER = map(Path, sys.argv[1:])


async def main():
    ballast = FOLDER / "ballast"
    ballast.write_bytes(b"x" * 32 * 1024)
    whole = {"type": "jsonl", "path": OTHER / "whole.jsonl"}
    kernel = Kernel(event_log=FOLDER / "events.jsonl", sinks=[whole])
    try:
        async with kernel:
            session = await kernel.session.create(Plan("fill the disk", {}))
            for n in range(40):
                session.emit("my:event", {"n": n, "pad": "x" * 1000})
            ballast.unlink()
            for n in range(40, 45):
                session.emit("my:event", {"n": n})
    except Internal as error:
        (OTHER / "lost").write_text(str(error.details["lost"]))
    shutil.copy(FOLDER / "events.jsonl", OTHER / "cut.jsonl")


if __name__ == "__main__":
    asyncio.run(main())
