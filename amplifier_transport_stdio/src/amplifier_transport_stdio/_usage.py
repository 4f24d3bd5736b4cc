"""CPU time and memory of a process and all its descendants, from ``/proc`` or, where there is none, from psutil.

Owns the measuring. The budgets are the kernel's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Measure = Callable[..., tuple[float, int]]  # of a pid: milliseconds of CPU time, bytes of memory


def measure_here(proc: str = "/proc/self/task") -> Measure | None:
    """Give the way to measure on this host; ``None`` if there is none."""
    if os.path.isdir(proc):
        return by_proc
    return by_psutil if psutil_here() is not None else None


def by_proc(pid: int, *, exact: bool) -> tuple[float, int]:
    """Measure with ``/proc``. ``exact`` counts a page that processes share once, where the system lets us see it."""
    ticks = memory = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
            fields = _read(f"/proc/{each}/stat").rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, and those of the children it has waited for
            memory += (_shared_once(each) if exact else None) or int(fields[21]) * _PAGE
    return ticks * 1000 / _TICKS, memory


def by_psutil(pid: int, *, exact: bool) -> tuple[float, int]:
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


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _tree(pid: int) -> Iterator[int]:
    """Walk from a process to its descendants; those whose parents have ended are not among them."""
    found = [pid]
    while found:
        each = found.pop()
        yield each
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                found += map(int, _read(f"/proc/{each}/task/{task}/children").split())


def _shared_once(pid: int) -> int | None:
    """Give the proportional set size; ``None`` where we may not see it."""
    with contextlib.suppress(OSError, IndexError):
        return int(_read(f"/proc/{pid}/smaps_rollup").partition(b"\nPss:")[2].split()[0]) * 1024
    return None


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def psutil_here() -> Any:
    """Give psutil, or ``None`` where it is not installed."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("psutil")
    return None
