"""Orphans: processes that modules leave running at their end, or that a killed kernel leaves running.

Owns one mark for each kernel, the searches for it, and the watchdog that outlives the kernel. Confined modules end with
their namespace, but not while it is being made: so the isolation's own processes are marked too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

from amplifier_core.hookspecs import watch_forks

from . import _orphan_search as search


class OrphanKiller:
    """Marks and kills the processes of one kernel's connections. It does nothing before the first ``mark``."""

    def __init__(self) -> None:
        self._mark = os.urandom(8).hex()
        self._count = 0
        self._wanted: set[bytes] = set()
        self._search: asyncio.Future[None] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        watch_forks(self)

    def after_fork(self) -> None:
        """Close the child's copy of the watchdog's pipe."""
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()

    def mark(self, env: dict[str, str]) -> tuple[dict[str, str], str]:
        """Give an environment with a new mark, and the mark: an empty one where processes cannot be searched."""
        if not search.can_search():
            return env, ""
        self._watch()
        self._count += 1
        mark = f"{self._mark}.{self._count}"
        return {search.VARIABLE: mark} | env | {search.VARIABLE: mark}, mark  # in front: see the search

    async def kill(self, mark: str) -> None:
        """Kill the processes that carry a mark. Calls at the same time share one search, in a thread."""
        self._wanted.add(mark.encode())
        while mark.encode() in self._wanted or self._search is not None:  # a search that began before does not count
            if self._search is None:
                self._search = asyncio.ensure_future(self._search_once())
            await asyncio.shield(self._search)

    async def close(self) -> None:
        """End the watchdog: every module has been closed before."""
        if self._watchdog is not None:
            self._watchdog.kill()
            await asyncio.to_thread(self._watchdog.communicate)

    def _watch(self) -> None:
        """Start the watchdog, also in place of one that somebody has killed."""
        if self._watchdog is not None and self._watchdog.poll() is not None:
            self._watchdog.communicate()
            self._watchdog = None
        if self._watchdog is None:
            self._watchdog = _start_watchdog(self._mark)

    async def _search_once(self) -> None:
        wanted, self._wanted = self._wanted, set()
        try:
            await asyncio.to_thread(search.kill_marked, wanted)
        finally:
            self._search = None


def _start_watchdog(mark: str) -> subprocess.Popen[bytes] | None:
    """Start a process that outlives this one: when this one ends, it kills all processes that carry the mark."""
    if not sys.executable or getattr(sys, "frozen", False):  # no Python to start
        return None
    kernel = os.getpid()
    with contextlib.suppress(OSError), contextlib.ExitStack() as ended:
        pidfd = os.pidfd_open(kernel)
        ended.callback(os.close, pidfd)
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", search.__file__, mark, str(kernel), str(pidfd), search.image(kernel)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            pass_fds=(pidfd,),
            start_new_session=True,
        )
    return None
