"""A replay in a process of its own, so that its memory is not that of the run: `replayer.py LOG NEW`.

It prints the seconds that the replay took, and the peak of the process's memory in MiB.
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from amplifier_replay import replay


def main() -> None:
    """Replay, and print the figures as JSON."""
    log, new = map(Path, sys.argv[1:])
    began = time.perf_counter()
    with new.open("wb") as out:
        asyncio.run(replay(log, out.write))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak": _peak()}))


def _peak() -> float:
    """Give the most memory that was resident. What Linux says of itself beside that counts the parent's, too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text("ascii").splitlines() if "VmHWM" in line)
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)


if __name__ == "__main__":
    main()
