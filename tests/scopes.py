"""anyio's cancel scopes around a session's calls. Each scope has to catch its own cancellation, and nothing else."""

import asyncio
import contextlib
import functools

import anyio

from amplifier_core import Timeout

SECONDS = 0.15


async def _move_on(session, *call):
    with anyio.move_on_after(SECONDS) as scope:
        await session.invoke(*call)
    assert scope.cancelled_caught


async def _fail(session, *call):
    failed = False
    try:
        with anyio.fail_after(SECONDS):
            await session.invoke(*call)
    except TimeoutError:
        failed = True
    assert failed


async def _group(session, *call):
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(session.invoke, *call)
        await anyio.sleep(SECONDS)
        group.cancel_scope.cancel()


async def _nested(session, *call):
    with anyio.move_on_after(SECONDS) as outer:
        with anyio.move_on_after(60) as inner:
            await session.invoke(*call)
        raise AssertionError("the outer scope did not end the body")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught


async def _chunks(session, *call):
    with anyio.move_on_after(SECONDS) as scope:
        async for _ in session.stream(*call):
            pass
    assert scope.cancelled_caught


async def _result(session, *call):
    with anyio.move_on_after(SECONDS) as scope:
        await session.stream(*call).result()
    assert scope.cancelled_caught


async def _deadline_first(session, *call):
    failed = False
    with anyio.move_on_after(60) as scope:
        try:
            await session.invoke(*call, timeout=SECONDS)
        except Timeout:
            failed = True
    assert failed
    assert not scope.cancel_called


async def _both_at_once(session, *call):
    """Whichever wins, the scope leaves nothing behind."""
    with anyio.move_on_after(SECONDS):
        with contextlib.suppress(Timeout):
            await session.invoke(*call, timeout=SECONDS)


async def _deadline_and_scope_in_one_turn(session, *call):
    """The scope is cancelled in the callback of the loop after the one in which the deadline passes."""
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        loop.call_later(SECONDS, functools.partial(loop.call_soon, scope.cancel))
        with contextlib.suppress(Timeout):
            await session.invoke(*call, timeout=SECONDS)


BODIES: tuple = (
    _move_on,
    _fail,
    _group,
    _nested,
    _chunks,
    _result,
    _deadline_first,
    _both_at_once,
    _deadline_and_scope_in_one_turn,
)


def still_cancelled():
    """Count the cancellations of the current task that nobody has taken back."""
    task = asyncio.current_task()
    assert task
    return task.cancelling()


async def check_scopes(session, path, op, args):
    """Put each kind of scope around a call that takes long. Nothing escapes, and no task stays cancelled."""

    async def run(body):
        await body(session, path, op, args)
        assert not still_cancelled()
        await asyncio.sleep(0)

    for body in BODIES:
        await asyncio.create_task(run(body), name=body.__name__)
