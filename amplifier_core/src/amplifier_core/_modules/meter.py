"""The meter of one kernel: it measures what modules use, in threads of its own.

Owns the threads. What is measured is the connection's, what follows from it the budget's.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import KernelError

if TYPE_CHECKING:
    from amplifier_core.hookspecs import Connection, Usage

_THREADS = 4  # so a module with many processes does not delay the others


class Meter:
    """Measures for all modules of a kernel. The threads start when they are needed, and end with ``close``."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="meter")

    async def measure(self, connection: Connection, *, exact: bool) -> tuple[Usage | None, float]:
        """Give what a module uses, and the seconds of CPU time that it took to find out.

        Raises the connection's ``KernelError``. Any other exception of it is ``None``: it is asked again later.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _measure, connection, exact)

    async def close(self) -> None:
        """End the threads."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)


def _measure(connection: Connection, exact: bool) -> tuple[Usage | None, float]:  # noqa: FBT001 - an executor passes it
    began = time.thread_time()
    usage = None
    try:
        usage = connection.usage(exact=exact)
    except KernelError:
        raise
    except Exception:  # noqa: BLE001, S110 - foreign code
        pass
    return usage, time.thread_time() - began
