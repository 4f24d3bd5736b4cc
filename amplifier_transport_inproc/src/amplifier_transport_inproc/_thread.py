"""Functions in threads of their own: daemons, so that one which never ends holds up no program's end.

Owns the thread. How many run at once is the connection's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


def in_thread(function: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Run a function in a thread, in a copy of this context. It raises nothing but an ``Exception``."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        settle: Callable[[], None]
        try:
            settle = partial(future.set_result, context.run(function))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            settle = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    Thread(target=work, name="inproc", daemon=True).start()
    return future
