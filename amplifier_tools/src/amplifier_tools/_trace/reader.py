"""The entries of a log, and what is wrong with it: lines that are no events, and events that are missing.

Owns the counts. `log` owns the lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_tools._entry import read_entry

from .log import LINE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amplifier_tools._entry import Entry

    from .log import Log

__all__ = ["Reader"]

_KERNELS_MAX = 1024  # whose numbers are followed


class Reader:
    """Reads each line of a log as an entry."""

    def __init__(self, log: Log) -> None:
        self.log: Log = log
        self._last: dict[str, int] = {}
        self.line: bytes = b""
        """The line of the entry that was given last."""
        self.events: int = 0
        """Events that were given."""
        self.torn: int = 0
        """Lines that are no events: torn ones, for example."""
        self.missing: int = 0
        """Events that are not there, as the numbers of the others show."""
        self.left_out: int = 0
        """Events that another program is not told: the span that they happened in has no end."""

    def entries(self) -> Iterator[Entry]:
        """Give each entry, in the order of the log."""
        for line in self.log.lines():
            entry = read_entry(line)
            if entry is None:
                self.torn += 1
            else:
                self.events += 1
                self._count(entry)
                self.line = line
                yield entry

    def _count(self, entry: Entry) -> None:
        if entry.seq is None or (entry.kernel not in self._last and len(self._last) >= _KERNELS_MAX):
            return
        last = self._last.get(entry.kernel, entry.seq - 1)
        self.missing += max(0, entry.seq - last - 1)
        self._last[entry.kernel] = max(last, entry.seq)

    def doubts(self) -> list[str]:
        """Say what was wrong, a line each."""
        counts = {
            "lines that are no events, skipped": self.torn,
            f"lines of more than {LINE_MAX} bytes, skipped": self.log.too_long,
            "events that are missing, as the numbers of the others show": self.missing,
            "events left out, whose span has no end": self.left_out,
        }
        return [f"{what}: {count}" for what, count in counts.items() if count]
