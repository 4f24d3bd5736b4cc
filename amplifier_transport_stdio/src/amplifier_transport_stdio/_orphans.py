"""Orphans: what modules leave behind when they end, and what a kernel that is killed leaves behind.

Owns one mark a kernel, the searches for it, and the watch that outlives the kernel. What an isolation confines needs
none of it: that ends with its namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

from . import _marks


class Orphans:
    """What the connections of one kernel share. It does nothing until a process is started that nothing confines."""

    def __init__(self) -> None:
        self._mark = os.urandom(8).hex()
        self._count = 0
        self._wanted: set[bytes] = set()
        self._search: asyncio.Future[None] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    def marked(self, env: dict[str, str]) -> tuple[dict[str, str], str]:
        """Give an environment with a mark of its own, and the mark; empty where processes cannot be searched."""
        if not _marks.can_search():
            return env, ""
        if self._watch is None:
            self._watch = _start_watch(self._mark)
        self._count += 1
        mark = f"{self._mark}.{self._count}"
        return {**env, _marks.VARIABLE: mark}, mark

    async def end(self, mark: str) -> None:
        """Kill what still carries a mark. Those who ask at the same time share one search, in a thread."""
        self._wanted.add(mark.encode())
        while mark.encode() in self._wanted or self._search is not None:  # a search that began before does not count
            if self._search is None:
                self._search = asyncio.ensure_future(self._search_once())
            await asyncio.shield(self._search)

    async def close(self) -> None:
        """End the watch; by now there is nothing left to watch."""
        if self._watch is not None:
            self._watch.kill()
            await asyncio.to_thread(self._watch.communicate)

    async def _search_once(self) -> None:
        wanted, self._wanted = self._wanted, set()
        try:
            await asyncio.to_thread(_marks.end_marked, wanted)
        finally:
            self._search = None


def _start_watch(mark: str) -> subprocess.Popen[bytes] | None:
    """Start what outlives us: when the pipe to it closes, it ends all that carries the mark."""
    if not sys.executable or getattr(sys, "frozen", False):  # no Python to start
        return None
    with contextlib.suppress(OSError):
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", _marks.__file__, mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    return None
