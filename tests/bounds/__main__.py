"""Play every place, and print the rows that are not as they should be: `python3 noxfile.py -s bounds [WORD …]`.

The words pick the rows whose line has them all, and show each. Nothing else should be running.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from functools import partial

from tests.bounds.places import PLACES
from tests.bounds.stage import Seen, import_transports, picked, play_picked

ROW = "{:<8} {:<100} {:<8} {:>8} {:>6} {:>6}  {:<16} {}"
_PROCESSES = 2
_PLACES = 8  # of one process: memory that it has freed and uses again would hide growth


def main() -> None:
    """Print the table, and fail if a row does."""
    words = sys.argv[1:]
    print(ROW.format("", "place", "filler", "size", "gap ms", "MB", "code", "ok"))
    count = failed = 0
    began = time.monotonic()
    places = [(transport, place) for transport, places in PLACES.items() for place in places()]
    places = [where for where in places if picked(words, *where)]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(_PROCESSES, import_transports, maxtasksperchild=_PLACES) as pool:
        for (transport, place), seen in zip(places, pool.imap(partial(play_picked, words), places), strict=True):
            count += len(seen)
            for each in seen:
                failed += _show(transport, place.name, each, all_of_them=bool(words))
    print(f"{count} rows, {failed} of them not as they should be, in {time.monotonic() - began:.0f} s")
    sys.exit(1 if failed or not count else 0)


def _show(transport: str, name: str, seen: Seen | str, *, all_of_them: bool) -> bool:
    """Print a row that is not as it should be, or any; tell whether it is one of those."""
    if isinstance(seen, str):
        print(ROW.format(transport, name[:100], "", "", "", "", "", f"NO: {seen}"), flush=True)
        return True
    if seen.fault or all_of_them:
        gap, growth = f"{seen.gap * 1000:.0f}", f"{seen.growth / 1e6:.0f}"
        ok = f"NO: {seen.fault}" if seen.fault else "yes"
        print(ROW.format(transport, name[:100], seen.filler, seen.size, gap, growth, seen.code, ok), flush=True)
    return bool(seen.fault)


if __name__ == "__main__":
    main()
