"""What the kernel costs, in ratios to the limits, measured in one run on one CPU: `python3 noxfile.py -s bench`.

A limit is what nobody can go below on this machine: the system calls alone, or the dependencies alone. Each path is a
module beside this one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
from pathlib import Path

import events
import forks
import idle
import imports
import isolated
import over_http
import over_stdio
import turns
from rounds import Pace
from table import as_json, text

PATHS = {
    "stdio": over_stdio,
    "turns": turns,
    "events": events,
    "http": over_http,
    "idle": idle,
    "imports": imports,
    "isolated": isolated,
    "forks": forks,
}


def main() -> None:
    """Measure, print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description="Measure what the kernel costs.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"what to measure: {', '.join(PATHS)}; all if none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=15, help="how many to take the medians of (default: 15)")
    options = parser.parse_args()
    if unknown := set(options.paths) - set(PATHS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    pace = Pace(1, 0.001, quick=True) if options.quick else Pace(options.rounds, 0.05)
    pinned = pin()
    rows = []
    for name in options.paths or PATHS:
        print(f"{name} …", file=sys.stderr, flush=True)
        gc.collect()
        rows += asyncio.run(PATHS[name].rows(pace))
    where = "not pinned, for want of sched_setaffinity" if pinned is None else f"both ends pinned to CPU {pinned}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {platform.system()} {platform.machine()}, {where}; medians of {pace.rounds} interleaved rounds\n")
    print(text(rows))
    if options.json:
        found = {"python": python, "machine": platform.platform(), "cpu": pinned, "rounds": pace.rounds}
        options.json.write_text(json.dumps({**found, "rows": as_json(rows)}, indent=2, ensure_ascii=False) + "\n")


def pin() -> int | None:
    """Keep this process, and every child that it will have, on one CPU, and say on which."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


if __name__ == "__main__":
    main()
