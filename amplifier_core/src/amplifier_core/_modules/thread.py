"""Work in a thread that can be given up.

Owns the thread. ``asyncio.to_thread`` shares a few threads with the whole program, whose end waits for them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


async def in_thread(work: Callable[[], _Result]) -> _Result:
    """Do the work in a thread of its own, and return or raise what it does.

    If the wait is cancelled, the thread goes on, and nothing waits for it: neither the loop nor the program's end.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()  # from here on, a cancel leaves it alone
    Thread(target=_do, args=(work, future), daemon=True).start()
    return await asyncio.wrap_future(future)


def _do(work: Callable[[], _Result], future: Future[_Result]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        future.set_exception(error)
