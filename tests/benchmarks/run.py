"""What the kernel costs, in ratios to the limits, measured in one run on one CPU: `python3 noxfile.py -s bench`.

A limit is the least that is possible on this machine: only the system calls, or only the dependencies. Each path is a
module beside this one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import bars
import baseline
import events
import exported
import forks
import idle
import imports
import isolated
import nested
import over_grpc
import over_http
import over_inproc
import over_mcp
import over_nats
import over_stdio
import over_wasm
import pythons
import recorded
import replayed
import turns
from place import pin, place
from rounds import Pace
from table import as_json, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from table import Row

_LARGE = 16 * 1024 * 1024  # bytes; no message is larger

PATHS = {
    "stdio": over_stdio,
    "nested": nested,
    "turns": turns,
    "recorded": recorded,
    "replayed": replayed,
    "events": events,
    "exported": exported,
    "http": over_http,
    "grpc": over_grpc,
    "nats": over_nats,
    "inproc": over_inproc,
    "mcp": over_mcp,
    "wasm": over_wasm,
    "idle": idle,
    "imports": imports,
    "isolated": isolated,
    "forks": forks,
    "pythons": pythons,
}


def main() -> int:
    """Measure, print the table, write the files of the options. The exit status says whether a ratio got worse."""
    options = _options()
    pythons.beside = options.beside
    replayed.events = options.events
    pace = Pace(1, 0.001, quick=True) if options.quick else Pace(options.rounds, 0.05)
    where = f"{place(None if options.quick else pin())}; medians of {pace.rounds} interleaved rounds"
    found = _measure(options.paths or PATHS, pace)
    rows = [row for part in found.values() for row in part]
    print(where, text(rows), sep="\n\n")
    if options.json:
        options.json.write_text(
            json.dumps({"where": where, "rows": as_json(rows)}, indent=2, ensure_ascii=False) + "\n"
        )
    if options.svg:
        bars.draw(rows, where, options.svg)
    if options.baseline:
        baseline.save(rows, where, options.baseline)
    return _compare(found, pace, baseline.load(options.compare)) if options.compare else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what the kernel costs.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"what to measure: {', '.join(PATHS)}; all if none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw what has a goal there")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="write the ratios there, to be compared with")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="point out what is a fifth worse than there")
    parser.add_argument(
        "--beside", default="", metavar="PYTHON", help="another interpreter, to measure beside this one"
    )
    parser.add_argument(
        "--events", type=int, default=replayed.events, help=f"how many to replay (default: {replayed.events})"
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=15, help="how many to take the medians of (default: 15)")
    options = parser.parse_args()
    if unknown := set(options.paths) - set(PATHS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def _measure(names: Iterable[str], pace: Pace) -> dict[str, list[Row]]:
    found = {}
    bytes(_LARGE)  # glibc maps memory anew, for 100 µs, if it is larger than all that was freed before
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        gc.collect()
        found[name] = asyncio.run(PATHS[name].rows(pace))
    return found


def _compare(found: Mapping[str, list[Row]], pace: Pace, committed: Mapping[str, float]) -> int:
    """Name the ratios that are worse than the baseline twice. What is worse only once is noise of the machine."""
    suspects = {name for name, rows in found.items() if baseline.worse(rows, committed)}
    again = _measure(sorted(suspects), pace)
    worse = [
        line
        for name, rows in again.items()
        for path, line in baseline.worse(rows, committed).items()
        if path in baseline.worse(found[name], committed)
    ]
    print("", "Worse than the baseline by more than a fifth:" if worse else "No ratio got worse by a fifth.", sep="\n")
    for line in worse:
        print(f"  {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
