"""The memory of this process beside that of the module: what the engine takes to compile it, and in its calls.

Owns the bound, which Linux alone keeps. A small module can be made to compile in gigabytes, or to have names that a
trap spells out for ever. The memory that ``BoundedMemory`` gives is shared, and no part of this.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

_TABLE = "/proc/self/statm"
_DATA = 5  # of the numbers there: pages
_NO_CORE = 1  # byte: 0 does not stop a dump to a program


def bound_own_memory(more: int | None) -> None:
    """Let this process take so many bytes more than it has now, or all it may: beyond, an allocation fails or aborts.

    An abort leaves no core file.
    """
    with contextlib.suppress(OSError, ImportError, ValueError):  # another system; or it has less already
        used = int(Path(_TABLE).read_bytes().split()[_DATA])
        resource = importlib.import_module("resource")
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = most if more is None else used * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
        resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1]))
