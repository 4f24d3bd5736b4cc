"""CPU time and memory of a process and all its descendants, from ``/proc`` or, where there is none, from psutil.

Owns the measuring. The budgets are the kernel's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from typing import TYPE_CHECKING, Any

from amplifier_core import Oom

from ._unreaped import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._unreaped import Unreaped

    Measure = Callable[..., tuple[float, int]]  # of a pid: milliseconds of CPU time, bytes of memory


def measure_here(proc: str = "/proc/self/task") -> Measure | None:
    """Give the way to measure on this host; ``None`` if there is none."""
    if os.path.isdir(proc):
        return by_proc
    return by_psutil if psutil_here() is not None else None


def by_proc(pid: int, *, exact: bool, unreaped: Unreaped | None = None) -> tuple[float, int]:
    """Measure with ``/proc``. ``exact`` counts a page that processes share once, where the system lets us see it.

    ``unreaped`` has the samples of the same tree before this one.

    Raises ``Oom`` if there is more to look at than ``MOST``.
    """
    ticks = memory = looked = 0
    found: list[int] = [pid]
    seen: dict[int, Seen] = {}
    while found:
        each = found.pop()
        with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
            fields = _read(f"/proc/{each}/stat").rpartition(b")")[2].split()
            tasks = [str(each)] if int(fields[17]) == 1 else os.listdir(f"/proc/{each}/task")
            looked += len(tasks)
            if looked > MOST:
                raise Oom(f"the module has more than {MOST} processes and threads, too many to measure")
            found += (child for task in tasks for child in _children(each, task))
            ticks += sum(map(int, fields[11:15]))  # utime, stime, and those of the children it has waited for
            memory += _memory(each, exact=exact)
            seen[each] = _see(each, fields)
    cpu_ms = ticks * 1000 / _TICKS
    if unreaped is not None:
        unreaped.add(seen, os.cpu_count() or 1)
        cpu_ms = unreaped.total(cpu_ms)
    return cpu_ms, memory


def _see(pid: int, fields: list[bytes]) -> Seen:
    user, system, waited_user, waited_system = (int(field) * 1000 / _TICKS for field in fields[11:15])
    own_ms = user + system or int(_read(f"/proc/{pid}/schedstat").split()[0]) / 1e6  # it may be less than a tick
    return Seen(fields[19], int(fields[1]), fields[0] == b"R", own_ms, waited_user + waited_system)


def by_psutil(pid: int, *, exact: bool, unreaped: Unreaped | None = None) -> tuple[float, int]:  # noqa: ARG001
    """Measure with psutil, which looks through every process of the host."""
    psutil = psutil_here()
    cpu = memory = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for each in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                cpu += sum(each.cpu_times()[:4])
                memory += each.memory_full_info().uss if exact else each.memory_info().rss
    return cpu * 1000, int(memory)


MOST = 16_384
"""Processes and threads of one module that are looked at."""

_SIZES = re.compile(rb"^(VmRSS|VmSwap|VmPTE|HugetlbPages):\s+(\d+) kB", re.MULTILINE)
_SHARES = re.compile(rb"^(Pss|SwapPss):\s+(\d+) kB", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def children_of(pid: int) -> list[int]:
    """List what a process has started, the oldest first; nothing where there is no ``/proc``."""
    with contextlib.suppress(OSError):
        return [child for task in os.listdir(f"/proc/{pid}/task") for child in _children(pid, task)]
    return []


def _children(pid: int, task: str) -> list[int]:
    """List what a thread has started; those whose parents have ended are not among them."""
    with contextlib.suppress(OSError):
        return list(map(int, _read(f"/proc/{pid}/task/{task}/children").split()))
    return []


def _memory(pid: int, *, exact: bool) -> int:
    """Give the bytes that a process holds: with what is swapped out, huge pages and its page tables."""
    held = {name: int(size) for name, size in _SIZES.findall(_read(f"/proc/{pid}/status"))}
    if exact:
        held |= _shared_once(pid)
    return sum(held.values()) * 1024


def _shared_once(pid: int) -> dict[bytes, int]:
    """Give the proportional set size in place of the resident memory; nothing where we may not see it."""
    with contextlib.suppress(OSError):
        sizes = {name: int(size) for name, size in _SHARES.findall(_read(f"/proc/{pid}/smaps_rollup"))}
        return {b"VmRSS": sizes[b"Pss"], b"VmSwap": sizes[b"SwapPss"]} if sizes else {}
    return {}


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def psutil_here() -> Any:
    """Give psutil, or ``None`` where it is not installed."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("psutil")
    return None
