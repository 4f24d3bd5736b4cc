"""What one request waits for: whatever comes first, it goes on once."""

import asyncio

import pytest

from amplifier_core import Unreachable
from amplifier_core.hookspecs import Message
from amplifier_transport_stdio._reply import ReplyFuture


@pytest.fixture
def given_up():
    return []


@pytest.fixture
async def reply(given_up):
    return ReplyFuture(asyncio.get_running_loop(), "r1", given_up.append)


async def test_a_reply_that_is_there_already_is_not_waited_for(reply):
    message = Message(ok=True, result=1)
    reply.set_result(message)
    assert await reply is message


async def test_an_error_that_is_there_already_is_raised(reply):
    reply.set_exception(Unreachable("gone"))
    with pytest.raises(Unreachable):
        await reply


async def test_the_task_goes_on_in_the_callback_that_has_the_reply(reply):
    order = []

    async def wait():
        order.append(await reply)

    async def turn():
        """Be a callback of the loop, not a task."""
        done = asyncio.get_running_loop().create_future()

        def callback():
            reply.set_result("told")
            order.append("after")
            done.set_result(None)

        asyncio.get_running_loop().call_soon(callback)
        await done

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await turn()
    await waiting
    assert order == ["told", "after"]


async def test_whoever_is_cancelled_stays_cancelled(reply, given_up):
    task = asyncio.create_task(_wait(reply))
    await asyncio.sleep(0)
    task.cancel()
    assert given_up == ["r1"]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reply.cancel() is False
    assert given_up == ["r1"]
    assert reply.get_loop() is asyncio.get_running_loop()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_task_that_has_the_reply_leaves_the_other_one_to_the_loop(reply, given_up, cancelled):
    """No task can run within another one; whoever cancels it meanwhile is not lost either."""
    task = asyncio.create_task(_wait(reply))
    await asyncio.sleep(0)
    reply.set_result("told")
    assert reply.done()
    assert not task.done()
    if cancelled:
        task.cancel()
    await asyncio.wait((task,), timeout=10)
    assert task.cancelled() if cancelled else task.result() == "told"
    assert given_up == []


async def _wait(reply):
    return await reply


async def test_a_result_before_its_time_is_refused(reply):
    with pytest.raises(asyncio.InvalidStateError):
        reply.result()
