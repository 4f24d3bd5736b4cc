import asyncio
import math
import random
from contextlib import ExitStack, suppress

import pytest

from amplifier_core import BadRequest, Cancelled, Timeout
from amplifier_core._modules.deadline import Deadlines, seconds_of

FAR = 60.0


@pytest.fixture
async def deadlines():
    deadlines = Deadlines(asyncio.get_running_loop())
    yield deadlines
    assert not deadlines.waiting
    deadlines.close()
    assert deadlines._timer is None


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def waits(deadlines, seconds, what="it", owner=None, *, then=None):
    with deadlines.within(seconds, what, owner):
        try:
            await for_ever()
        finally:
            if then is not None:
                await then


async def in_the_next_turn_of_the_loop():
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


async def until_waiting(deadlines, count):
    while len(deadlines.waiting) < count:
        await in_the_next_turn_of_the_loop()


async def no_cancellation_left():
    """Fail if the current task has a cancellation left, which its next await would raise."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await in_the_next_turn_of_the_loop()


async def test_a_body_that_ends_in_time_is_not_cancelled(deadlines):
    with deadlines.within(FAR, "it") as deadline:
        await in_the_next_turn_of_the_loop()
        assert FAR - 5 < deadline.seconds_left() <= FAR
        assert list(deadlines.waiting) == [deadline]
    await no_cancellation_left()


async def test_a_body_that_does_not_is_a_timeout_that_names_it(deadlines):
    with pytest.raises(Timeout) as caught:
        await waits(deadlines, 0.02, "/mnt/tools/a")
    assert caught.value.message == "/mnt/tools/a: no answer within 0.02 s"
    await no_cancellation_left()


async def test_a_timeout_comes_within_50_ms_of_its_deadline_and_not_before_it(deadlines):
    loop = asyncio.get_running_loop()
    plain: dict[float, float] = {}
    ours: dict[float, float] = {}
    start = loop.time()

    async def bounded(seconds):
        loop.call_at(start + seconds, lambda: plain.setdefault(seconds, loop.time() - start))
        with suppress(Timeout):
            await waits(deadlines, seconds)
        ours[seconds] = loop.time() - start

    limits = [n / 100 for n in range(1, 21)]
    random.Random(1).shuffle(limits)
    await asyncio.gather(*map(bounded, limits))
    while len(plain) < len(limits):  # `Deadlines` may be a few milliseconds early
        await asyncio.sleep(0.001)
    for seconds in limits:
        assert ours[seconds] > seconds - 0.01
        assert ours[seconds] < plain[seconds] + 0.05  # against a timer of the loop: on a busy machine both are late


async def test_a_task_may_wait_with_a_deadline_again_and_again(deadlines):
    for _ in range(3):
        with pytest.raises(Timeout):
            await waits(deadlines, 0.005)
    await no_cancellation_left()


async def test_the_body_cleans_up_before_the_timeout_is_raised(deadlines):
    done = []

    async def clean_up():
        await in_the_next_turn_of_the_loop()
        done.append(True)

    with pytest.raises(Timeout):
        await waits(deadlines, 0.01, then=clean_up())
    assert done


async def test_an_error_that_the_body_raises_instead_is_kept(deadlines):
    with pytest.raises(ValueError, match="mine"), deadlines.within(0.01, "it"):
        try:
            await for_ever()
        except asyncio.CancelledError:
            raise ValueError("mine") from None
    await no_cancellation_left()


async def test_a_body_that_ignores_the_cancellation_has_none_left(deadlines):
    with deadlines.within(0.01, "it"), suppress(asyncio.CancelledError):
        await for_ever()
    await no_cancellation_left()


@pytest.mark.parametrize(
    ("outer", "inner", "expected"), [(0.02, FAR, "outer"), (FAR, 0.02, "inner"), (0.02, 0.02, "outer")]
)
async def test_of_nested_deadlines_the_one_that_passes_is_named(deadlines, outer, inner, expected):
    with pytest.raises(Timeout, match=expected), deadlines.within(outer, "outer"):
        await waits(deadlines, inner, "inner")
    await no_cancellation_left()


async def test_after_an_inner_timeout_the_outer_deadline_still_holds(deadlines):
    with pytest.raises(Timeout, match="outer"), deadlines.within(0.04, "outer"):
        with pytest.raises(Timeout, match="inner"):
            await waits(deadlines, 0.01, "inner")
        await no_cancellation_left()
        await for_ever()
    await no_cancellation_left()


async def test_an_outer_deadline_that_passes_while_the_inner_body_cleans_up_is_raised(deadlines):
    with pytest.raises(Timeout, match="outer"), deadlines.within(0.03, "outer"):
        await waits(deadlines, 0.01, "inner", then=for_ever())
    await no_cancellation_left()


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_deadlines_that_pass_at_once_each_cancel_a_body_that_goes_on(deadlines, depth):
    """Of two cancellations that come before a task runs, asyncio makes one."""
    cancelled = 0
    with pytest.raises(Timeout, match="the outer one"), ExitStack() as nested:
        for name in ("the outer one", "the next one", "the inner one")[:depth]:
            nested.enter_context(deadlines.within(0.01, name))
        for _ in range(depth):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                cancelled += 1
        raise asyncio.CancelledError
    assert cancelled == depth
    await no_cancellation_left()


async def test_deadlines_that_pass_at_once_leave_the_outer_body_alone_once_the_inner_one_has_ended(deadlines):
    cleaned_up = False
    with pytest.raises(Timeout, match="outer"), deadlines.within(0.01, "outer"):
        try:
            await waits(deadlines, 0.01, "inner", then=in_the_next_turn_of_the_loop())
        finally:
            await asyncio.sleep(0.05)
            cleaned_up = True
    assert cleaned_up
    await no_cancellation_left()


async def test_an_inner_deadline_that_passes_while_the_outer_body_cleans_up_is_raised_there(deadlines):
    with pytest.raises(Timeout, match="outer"), deadlines.within(0.01, "outer"):
        try:
            await for_ever()
        finally:
            with pytest.raises(Timeout, match="inner"):
                await waits(deadlines, 0.01, "inner")
    await no_cancellation_left()


@pytest.mark.parametrize("seconds", [[0.02, 0.01, 0.03], [0.01, 0.02, 0.03], [0.03, 0.02, 0.01], [0.01] * 3])
async def test_the_count_of_cancellations_is_kept_three_deadlines_deep(deadlines, seconds):
    one, two, three = seconds
    with pytest.raises(Timeout), deadlines.within(one, "one"), deadlines.within(two, "two"):
        await waits(deadlines, three, "three")
    await no_cancellation_left()


async def test_a_cancellation_from_outside_stays_a_cancellation(deadlines):
    task = asyncio.create_task(waits(deadlines, FAR))
    await until_waiting(deadlines, 1)
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert not deadlines.waiting


@pytest.mark.parametrize("first", ["cancelled", "expired"])
@pytest.mark.parametrize("deep", [1, 2, 3])
async def test_a_cancellation_at_the_moment_of_the_deadline_is_raised(deadlines, first, deep):
    async def nested(levels):
        if levels == 0:
            await for_ever()
        with deadlines.within(FAR, "it"):
            await nested(levels - 1)

    task = asyncio.create_task(nested(deep))
    await until_waiting(deadlines, deep)

    def expire():
        for deadline in deadlines.waiting:
            deadline.fail(Timeout("late"))

    for step in (task.cancel, expire) if first == "cancelled" else (expire, task.cancel):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancelled_task_still_has_deadlines_while_it_cleans_up(deadlines):
    ended = []

    async def body():
        try:
            await for_ever()
        finally:
            try:
                await waits(deadlines, 0.01)
            except (Timeout, asyncio.CancelledError) as error:
                ended.append(type(error))

    task = asyncio.create_task(body())
    await in_the_next_turn_of_the_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [Timeout]


async def test_a_result_in_the_same_turn_as_the_deadline_leaves_no_cancellation(deadlines):
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    with pytest.raises(Timeout, match="late"), deadlines.within(FAR, "it") as deadline:
        loop.call_soon(answer.set_result, 1)
        loop.call_soon(deadline.fail, Timeout("late"))
        await answer
    await no_cancellation_left()


async def test_deadlines_and_the_standard_timeouts_do_not_mix(deadlines):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waits(deadlines, FAR)
    with pytest.raises(Timeout), deadlines.within(0.01, "it"):
        async with asyncio.timeout(FAR):
            await for_ever()
    with pytest.raises(Timeout), deadlines.within(0.01, "it"):
        await asyncio.wait_for(for_ever(), FAR)
    with pytest.raises(Timeout), deadlines.within(0.01, "it"):
        async with asyncio.TaskGroup() as group:
            group.create_task(for_ever())
            group.create_task(for_ever())
    await no_cancellation_left()


async def test_a_timeout_in_a_task_group_is_its_error(deadlines):
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(deadlines, 0.01, "one"))
            group.create_task(waits(deadlines, FAR, "other"))
    assert [error.message for error in caught.value.exceptions] == ["one: no answer within 0.01 s"]


# --- ends by owner


async def test_stop_ends_the_waits_of_one_owner_with_an_error_of_their_own(deadlines):
    mine, other = object(), object()
    tasks = [asyncio.create_task(waits(deadlines, FAR, f"{n}", mine)) for n in range(3)]
    spared = asyncio.create_task(waits(deadlines, FAR, "other", other))
    await until_waiting(deadlines, 4)
    await deadlines.stop(mine, Cancelled("has ended", details={"a": 1}))
    assert [deadline.what for deadline in deadlines.waiting] == ["other"]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["cancelled: has ended"] * 3
    assert [getattr(error, "details", None) for error in errors] == [{"a": 1}] * 3
    assert len({id(error) for error in errors}) == 3
    assert not spared.done()
    spared.cancel()
    await asyncio.wait([spared])


async def test_stop_waits_until_the_bodies_have_cleaned_up(deadlines):
    cleaned = []

    async def clean_up():
        for _ in range(5):
            await in_the_next_turn_of_the_loop()
        cleaned.append(True)

    task = asyncio.create_task(waits(deadlines, FAR, owner=deadlines, then=clean_up()))
    await until_waiting(deadlines, 1)
    await deadlines.stop(deadlines, Cancelled("has ended"))
    assert cleaned
    with pytest.raises(Cancelled):
        await task


async def test_stop_does_not_wait_for_a_task_that_ignores_the_cancellation(deadlines, monkeypatch):
    monkeypatch.setattr("amplifier_core._modules.deadline._STOP_SECONDS", 0.02)
    let_go = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(waits(deadlines, FAR, owner=deadlines, then=asyncio.shield(let_go)))
    await until_waiting(deadlines, 1)
    await deadlines.stop(deadlines, Cancelled("has ended"))
    assert not task.done()
    let_go.set_result(None)
    with pytest.raises(Cancelled):
        await task


async def test_stop_spares_the_task_that_calls_it(deadlines):
    with deadlines.within(FAR, "mine", deadlines):
        await deadlines.stop(deadlines, Cancelled("has ended"))
        await no_cancellation_left()


async def test_stop_without_waits_returns_at_once(deadlines):
    await deadlines.stop(object(), Cancelled("has ended"))


async def test_stop_ends_nested_waits_of_one_task_with_one_error(deadlines):
    async def nested():
        with deadlines.within(FAR, "outer", deadlines):
            await waits(deadlines, FAR, "inner", deadlines)

    task = asyncio.create_task(nested())
    await until_waiting(deadlines, 2)
    await deadlines.stop(deadlines, Cancelled("has ended"))
    assert not deadlines.waiting
    with pytest.raises(Cancelled):
        await task


async def test_stop_after_a_timeout_waits_for_its_cleaning_up_and_the_timeout_stands(deadlines):
    task = asyncio.create_task(waits(deadlines, 0.01, owner=deadlines, then=in_the_next_turn_of_the_loop()))
    await until_waiting(deadlines, 1)
    (deadline,) = deadlines.waiting
    deadline.fail(Timeout("late"))
    await deadlines.stop(deadlines, Cancelled("has ended"))
    with pytest.raises(Timeout, match="late"):
        await task


async def test_two_stops_of_one_owner_both_return_when_its_waits_have_ended(deadlines):
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(waits(deadlines, FAR, owner=deadlines))
    await until_waiting(deadlines, 1)
    start = loop.time()
    await asyncio.gather(*(deadlines.stop(deadlines, Cancelled("has ended")) for _ in range(2)))
    assert loop.time() - start < 5
    await asyncio.wait([task])


async def test_the_first_error_is_raised(deadlines):
    task = asyncio.create_task(waits(deadlines, FAR))
    await until_waiting(deadlines, 1)
    (deadline,) = deadlines.waiting
    for n in range(3):
        deadline.fail(Timeout(f"{n}"))
    assert task.cancelling() == 1
    with pytest.raises(Timeout, match="0"):
        await task


# --- idle time


async def test_without_a_sign_of_life_a_wait_ends_before_its_deadline(deadlines):
    with pytest.raises(Timeout) as caught, deadlines.within(FAR, "it") as deadline:
        deadline.idle_seconds = 0.02
        deadline.restart_idle()
        await for_ever()
    assert caught.value.message == "it: no message within 0.02 s"
    await no_cancellation_left()


async def test_each_sign_of_life_moves_the_end_but_never_beyond_the_deadline(deadlines):
    loop = asyncio.get_running_loop()
    with deadlines.within(FAR, "it") as deadline:
        end = deadline.when
        deadline.idle_seconds = FAR / 2
        deadline.restart_idle()
        before = deadline.when
        assert before <= loop.time() + FAR / 2 < end
        await in_the_next_turn_of_the_loop()
        deadline.restart_idle()
        assert before < deadline.when < end
        assert deadline.seconds_left() > FAR / 2 + 1  # to the deadline, not to the end of the idle time
        deadline.idle_seconds = FAR * 2
        deadline.restart_idle()
        assert deadline.when == end


async def test_a_deadline_before_the_end_of_the_idle_time_is_named(deadlines):
    with pytest.raises(Timeout, match="it: no answer within 0.02 s"), deadlines.within(0.02, "it") as deadline:
        deadline.idle_seconds = FAR
        deadline.restart_idle()
        await for_ever()


async def test_while_the_idle_time_is_paused_no_sign_of_life_is_expected(deadlines):
    with pytest.raises(Timeout, match="it: no answer within 0.05 s"), deadlines.within(0.05, "it") as deadline:
        deadline.idle_seconds = 0.01
        deadline.restart_idle()
        deadline.pause_idle()
        await for_ever()


async def test_after_a_pause_the_next_sign_of_life_begins_the_idle_time_again(deadlines):
    with pytest.raises(Timeout, match="it: no message within 0.01 s"), deadlines.within(FAR, "it") as deadline:
        deadline.idle_seconds = 0.01
        deadline.restart_idle()
        deadline.pause_idle()
        deadline.restart_idle()
        await for_ever()


async def test_without_an_idle_limit_a_sign_of_life_changes_nothing(deadlines):
    with deadlines.within(FAR, "it") as deadline:
        end = deadline.when
        deadline.restart_idle()
        deadline.pause_idle()
        assert deadline.when == end


# --- one timer


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that keeps a list of its timers."""

    timers: list[asyncio.TimerHandle]

    def call_at(self, when, callback, *args, context=None):  # type: ignore[override]
        handle = super().call_at(when, callback, *args, context=context)
        self.timers.append(handle)
        return handle

    def live(self):
        return [timer for timer in self.timers if not timer.cancelled() and timer.when() > self.time()]


@pytest.fixture
def counting():
    loop = CountingLoop()
    loop.timers = []
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        yield loop, runner.run


@pytest.mark.parametrize("order", ["ascending", "descending", "mixed"])
def test_a_thousand_deadlines_have_one_timer(counting, order):
    loop, run = counting
    seconds = [FAR + n / 100 for n in range(1000)]
    if order == "descending":
        seconds.reverse()
    elif order == "mixed":
        random.Random(1).shuffle(seconds)

    async def main():
        deadlines = Deadlines(loop)
        tasks = [asyncio.create_task(waits(deadlines, each)) for each in seconds]
        await until_waiting(deadlines, 1000)
        assert len(loop.live()) == 1
        assert loop.live()[0].when() <= min(deadline.when for deadline in deadlines.waiting)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not deadlines.waiting
        deadlines.close()
        deadlines.close()
        assert not loop.live()

    run(main())


def test_a_thousand_that_expire_together_take_one_timer_and_a_few_sweeps(counting):
    loop, run = counting

    async def main():
        deadlines = Deadlines(loop)
        results = await asyncio.gather(*(waits(deadlines, 0.05) for _ in range(1000)), return_exceptions=True)
        assert {type(result) for result in results} == {Timeout}
        assert not deadlines.waiting
        assert len(loop.timers) < 20
        assert not loop.live()

    run(main())


def test_a_call_that_ends_in_time_costs_no_timer_of_its_own(counting):
    loop, run = counting

    async def main():
        deadlines = Deadlines(loop)
        for _ in range(1000):
            with deadlines.within(FAR, "it"):
                pass
        assert len(loop.timers) == 1
        deadlines.close()
        assert not loop.live()

    run(main())


def test_a_nearer_deadline_moves_the_timer_and_the_far_one_is_kept(counting):
    loop, run = counting

    async def main():
        deadlines = Deadlines(loop)
        far = asyncio.create_task(waits(deadlines, 0.06, "far"))
        await until_waiting(deadlines, 1)
        with pytest.raises(Timeout, match="near"):
            await waits(deadlines, 0.02, "near")
        with pytest.raises(Timeout, match="far"):
            await far
        assert not loop.live()

    run(main())


@pytest.mark.parametrize("seconds", [1, 0.001, 5e-324, 10**9, 1e9])
def test_a_time_bound_is_a_positive_number_of_seconds(seconds):
    assert seconds_of(seconds, 30.0) == seconds


def test_no_time_bound_is_the_default():
    assert seconds_of(None, 30.0) == 30.0


@pytest.mark.parametrize("timeout", [0, -1, 0.0, -0.0, math.nan, math.inf, -math.inf, True, False, "5", [], 1j])
def test_other_values_are_refused_as_time_bounds(timeout):
    with pytest.raises(BadRequest, match=r"^bad_request: timeout: expected a positive number of seconds, got "):
        seconds_of(timeout, 30.0)


def test_a_time_bound_that_no_clock_can_count_is_refused():
    with pytest.raises(BadRequest, match=r"^bad_request: timeout: expected"):
        seconds_of(10**400, 30.0)


async def test_a_deadline_beyond_the_range_of_the_clock_never_passes(deadlines):
    with deadlines.within(1e308, "it"):
        await in_the_next_turn_of_the_loop()
