import asyncio
import math
import random
from contextlib import suppress

import pytest

from amplifier_core import BadRequest, Cancelled, Timeout
from amplifier_core._modules.deadline import Guards, seconds_of

FAR = 60.0


@pytest.fixture
async def guards():
    guards = Guards(asyncio.get_running_loop())
    yield guards
    assert not guards.waiting
    guards.close()
    assert guards._timer is None


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def waits(guards, seconds, what="it", owner=None, *, then=None):
    with guards.within(seconds, what, owner):
        try:
            await for_ever()
        finally:
            if then is not None:
                await then


async def in_the_next_turn_of_the_loop():
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


async def until_waiting(guards, count):
    while len(guards.waiting) < count:
        await in_the_next_turn_of_the_loop()


async def nothing_stray():
    """Fail if the task that runs this has a cancellation left in it, which the next await would hit."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await in_the_next_turn_of_the_loop()


async def test_what_ends_in_time_is_left_alone(guards):
    with guards.within(FAR, "it") as guard:
        await in_the_next_turn_of_the_loop()
        assert FAR - 5 < guard.left() <= FAR
        assert list(guards.waiting) == [guard]
    await nothing_stray()


async def test_what_does_not_is_a_timeout_that_names_it(guards):
    with pytest.raises(Timeout) as caught:
        await waits(guards, 0.02, "/mnt/tools/a")
    assert caught.value.message == "/mnt/tools/a: no answer within 0.02 s"
    await nothing_stray()


async def test_a_timeout_comes_within_50_ms_of_its_deadline_and_not_before_it(guards):
    loop = asyncio.get_running_loop()
    plain: dict[float, float] = {}
    ours: dict[float, float] = {}
    start = loop.time()

    async def bounded(seconds):
        loop.call_at(start + seconds, lambda: plain.setdefault(seconds, loop.time() - start))
        with suppress(Timeout):
            await waits(guards, seconds)
        ours[seconds] = loop.time() - start

    deadlines = [n / 100 for n in range(1, 21)]
    random.Random(1).shuffle(deadlines)
    await asyncio.gather(*map(bounded, deadlines))
    while len(plain) < len(deadlines):  # ours may be a few milliseconds early
        await asyncio.sleep(0.001)
    for seconds in deadlines:
        assert ours[seconds] > seconds - 0.01
        assert ours[seconds] < plain[seconds] + 0.05  # than a timer of the loop: a busy machine is late with both


async def test_a_guard_may_be_waited_in_again_and_again(guards):
    for _ in range(3):
        with pytest.raises(Timeout):
            await waits(guards, 0.005)
    await nothing_stray()


async def test_the_body_cleans_up_before_the_timeout_is_raised(guards):
    done = []

    async def clean_up():
        await in_the_next_turn_of_the_loop()
        done.append(True)

    with pytest.raises(Timeout):
        await waits(guards, 0.01, then=clean_up())
    assert done


async def test_what_the_body_raises_instead_goes_out(guards):
    with pytest.raises(ValueError, match="mine"), guards.within(0.01, "it"):
        try:
            await for_ever()
        except asyncio.CancelledError:
            raise ValueError("mine") from None
    await nothing_stray()


async def test_a_body_that_carries_on_all_the_same_has_no_cancellation_left_in_it(guards):
    with guards.within(0.01, "it"), suppress(asyncio.CancelledError):
        await for_ever()
    await nothing_stray()


@pytest.mark.parametrize(
    ("outer", "inner", "expected"), [(0.02, FAR, "outer"), (FAR, 0.02, "inner"), (0.02, 0.02, "outer")]
)
async def test_of_nested_guards_the_one_that_trips_is_told(guards, outer, inner, expected):
    with pytest.raises(Timeout, match=expected), guards.within(outer, "outer"):
        await waits(guards, inner, "inner")
    await nothing_stray()


async def test_after_an_inner_timeout_the_outer_guard_still_holds(guards):
    with pytest.raises(Timeout, match="outer"), guards.within(0.04, "outer"):
        with pytest.raises(Timeout, match="inner"):
            await waits(guards, 0.01, "inner")
        await nothing_stray()
        await for_ever()
    await nothing_stray()


async def test_an_outer_guard_that_trips_while_an_inner_one_cleans_up_is_told(guards):
    with pytest.raises(Timeout, match="outer"), guards.within(0.03, "outer"):
        await waits(guards, 0.01, "inner", then=for_ever())
    await nothing_stray()


async def test_an_inner_guard_that_trips_while_an_outer_one_cleans_up_is_told_there(guards):
    with pytest.raises(Timeout, match="outer"), guards.within(0.01, "outer"):
        try:
            await for_ever()
        finally:
            with pytest.raises(Timeout, match="inner"):
                await waits(guards, 0.01, "inner")
    await nothing_stray()


@pytest.mark.parametrize("seconds", [[0.02, 0.01, 0.03], [0.01, 0.02, 0.03], [0.03, 0.02, 0.01], [0.01] * 3])
async def test_three_guards_deep_the_count_is_kept(guards, seconds):
    one, two, three = seconds
    with pytest.raises(Timeout), guards.within(one, "one"), guards.within(two, "two"):
        await waits(guards, three, "three")
    await nothing_stray()


async def test_being_cancelled_from_outside_stays_what_it_is(guards):
    task = asyncio.create_task(waits(guards, FAR))
    await until_waiting(guards, 1)
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert not guards.waiting


@pytest.mark.parametrize("first", ["cancelled", "expired"])
@pytest.mark.parametrize("deep", [1, 2, 3])
async def test_being_cancelled_at_the_moment_of_the_deadline_is_being_cancelled(guards, first, deep):
    async def nested(levels):
        if levels == 0:
            await for_ever()
        with guards.within(FAR, "it"):
            await nested(levels - 1)

    task = asyncio.create_task(nested(deep))
    await until_waiting(guards, deep)

    def expire():
        for guard in guards.waiting:
            guard.trip(Timeout("late"))

    for step in (task.cancel, expire) if first == "cancelled" else (expire, task.cancel):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancelled_task_still_has_deadlines_while_it_cleans_up(guards):
    ended = []

    async def body():
        try:
            await for_ever()
        finally:
            try:
                await waits(guards, 0.01)
            except (Timeout, asyncio.CancelledError) as error:
                ended.append(type(error))

    task = asyncio.create_task(body())
    await in_the_next_turn_of_the_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [Timeout]


async def test_an_answer_in_the_same_turn_as_the_deadline_leaves_nothing_stray(guards):
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    with pytest.raises(Timeout, match="late"), guards.within(FAR, "it") as guard:
        loop.call_soon(answer.set_result, 1)
        loop.call_soon(guard.trip, Timeout("late"))
        await answer
    await nothing_stray()


async def test_guards_and_the_standard_timeouts_know_their_own(guards):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waits(guards, FAR)
    with pytest.raises(Timeout), guards.within(0.01, "it"):
        async with asyncio.timeout(FAR):
            await for_ever()
    with pytest.raises(Timeout), guards.within(0.01, "it"):
        await asyncio.wait_for(for_ever(), FAR)
    with pytest.raises(Timeout), guards.within(0.01, "it"):
        async with asyncio.TaskGroup() as group:
            group.create_task(for_ever())
            group.create_task(for_ever())
    await nothing_stray()


async def test_a_timeout_in_a_task_group_is_its_error(guards):
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(guards, 0.01, "one"))
            group.create_task(waits(guards, FAR, "other"))
    assert [error.message for error in caught.value.exceptions] == ["one: no answer within 0.01 s"]


# --- ends by owner


async def test_stop_ends_the_waits_of_one_owner_with_an_error_of_their_own(guards):
    mine, other = object(), object()
    tasks = [asyncio.create_task(waits(guards, FAR, f"{n}", mine)) for n in range(3)]
    spared = asyncio.create_task(waits(guards, FAR, "other", other))
    await until_waiting(guards, 4)
    await guards.stop(mine, Cancelled("has ended", details={"a": 1}))
    assert [guard.what for guard in guards.waiting] == ["other"]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["cancelled: has ended"] * 3
    assert [getattr(error, "details", None) for error in errors] == [{"a": 1}] * 3
    assert len({id(error) for error in errors}) == 3
    assert not spared.done()
    spared.cancel()
    await asyncio.wait([spared])


async def test_stop_waits_until_what_it_ends_has_cleaned_up(guards):
    cleaned = []

    async def clean_up():
        for _ in range(5):
            await in_the_next_turn_of_the_loop()
        cleaned.append(True)

    task = asyncio.create_task(waits(guards, FAR, owner=guards, then=clean_up()))
    await until_waiting(guards, 1)
    await guards.stop(guards, Cancelled("has ended"))
    assert cleaned
    with pytest.raises(Cancelled):
        await task


async def test_stop_does_not_wait_for_what_does_not_let_go(guards, monkeypatch):
    monkeypatch.setattr("amplifier_core._modules.deadline._STOP_SECONDS", 0.02)
    let_go = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(waits(guards, FAR, owner=guards, then=asyncio.shield(let_go)))
    await until_waiting(guards, 1)
    await guards.stop(guards, Cancelled("has ended"))
    assert not task.done()
    let_go.set_result(None)
    with pytest.raises(Cancelled):
        await task


async def test_stop_spares_the_task_that_calls_it(guards):
    with guards.within(FAR, "mine", guards):
        await guards.stop(guards, Cancelled("has ended"))
        await nothing_stray()


async def test_stop_of_nothing_returns_at_once(guards):
    await guards.stop(object(), Cancelled("has ended"))


async def test_stop_ends_nested_waits_of_one_task_with_one_error(guards):
    async def nested():
        with guards.within(FAR, "outer", guards):
            await waits(guards, FAR, "inner", guards)

    task = asyncio.create_task(nested())
    await until_waiting(guards, 2)
    await guards.stop(guards, Cancelled("has ended"))
    assert not guards.waiting
    with pytest.raises(Cancelled):
        await task


async def test_stop_after_a_timeout_waits_for_its_cleaning_up_and_the_timeout_stands(guards):
    task = asyncio.create_task(waits(guards, 0.01, owner=guards, then=in_the_next_turn_of_the_loop()))
    await until_waiting(guards, 1)
    (guard,) = guards.waiting
    guard.trip(Timeout("late"))
    await guards.stop(guards, Cancelled("has ended"))
    with pytest.raises(Timeout, match="late"):
        await task


async def test_two_that_stop_one_owner_both_return_when_it_has_ended(guards):
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(waits(guards, FAR, owner=guards))
    await until_waiting(guards, 1)
    start = loop.time()
    await asyncio.gather(*(guards.stop(guards, Cancelled("has ended")) for _ in range(2)))
    assert loop.time() - start < 0.5
    await asyncio.wait([task])


async def test_the_first_error_stands(guards):
    task = asyncio.create_task(waits(guards, FAR))
    await until_waiting(guards, 1)
    (guard,) = guards.waiting
    for n in range(3):
        guard.trip(Timeout(f"{n}"))
    assert task.cancelling() == 1
    with pytest.raises(Timeout, match="0"):
        await task


# --- signs of life


async def test_without_a_sign_of_life_a_wait_ends_before_its_deadline(guards):
    with pytest.raises(Timeout) as caught, guards.within(FAR, "it") as guard:
        guard.idle = 0.02
        guard.touch()
        await for_ever()
    assert caught.value.message == "it: no sign of life within 0.02 s"
    await nothing_stray()


async def test_each_sign_of_life_moves_the_end_but_never_beyond_the_deadline(guards):
    loop = asyncio.get_running_loop()
    with guards.within(FAR, "it") as guard:
        deadline = guard.when
        guard.idle = FAR / 2
        guard.touch()
        before = guard.when
        assert before <= loop.time() + FAR / 2 < deadline
        await in_the_next_turn_of_the_loop()
        guard.touch()
        assert before < guard.when < deadline
        assert guard.left() > FAR / 2 + 1  # seconds to the deadline, whatever the signs of life
        guard.idle = FAR * 2
        guard.touch()
        assert guard.when == deadline


async def test_a_deadline_nearer_than_the_next_sign_of_life_is_told_as_such(guards):
    with pytest.raises(Timeout, match="it: no answer within 0.02 s"), guards.within(0.02, "it") as guard:
        guard.idle = FAR
        guard.touch()
        await for_ever()


async def test_while_it_rests_no_sign_of_life_is_expected(guards):
    with pytest.raises(Timeout, match="it: no answer within 0.05 s"), guards.within(0.05, "it") as guard:
        guard.idle = 0.01
        guard.touch()
        guard.rest()
        await for_ever()


async def test_after_a_rest_the_next_sign_of_life_begins_it_again(guards):
    with pytest.raises(Timeout, match="it: no sign of life within 0.01 s"), guards.within(FAR, "it") as guard:
        guard.idle = 0.01
        guard.touch()
        guard.rest()
        guard.touch()
        await for_ever()


async def test_a_sign_of_life_that_nobody_watches_for_changes_nothing(guards):
    with guards.within(FAR, "it") as guard:
        deadline = guard.when
        guard.touch()
        guard.rest()
        assert guard.when == deadline


# --- one timer


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that remembers its timers."""

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
def test_a_thousand_guards_have_one_timer(counting, order):
    loop, run = counting
    seconds = [FAR + n / 100 for n in range(1000)]
    if order == "descending":
        seconds.reverse()
    elif order == "mixed":
        random.Random(1).shuffle(seconds)

    async def main():
        guards = Guards(loop)
        tasks = [asyncio.create_task(waits(guards, each)) for each in seconds]
        await until_waiting(guards, 1000)
        assert len(loop.live()) == 1
        assert loop.live()[0].when() <= min(guard.when for guard in guards.waiting)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not guards.waiting
        guards.close()
        guards.close()
        assert not loop.live()

    run(main())


def test_a_thousand_that_expire_together_take_one_timer_and_a_few_sweeps(counting):
    loop, run = counting

    async def main():
        guards = Guards(loop)
        results = await asyncio.gather(*(waits(guards, 0.05) for _ in range(1000)), return_exceptions=True)
        assert {type(result) for result in results} == {Timeout}
        assert not guards.waiting
        assert len(loop.timers) < 20
        assert not loop.live()

    run(main())


def test_a_call_that_ends_in_time_costs_no_timer_of_its_own(counting):
    loop, run = counting

    async def main():
        guards = Guards(loop)
        for _ in range(1000):
            with guards.within(FAR, "it"):
                pass
        assert len(loop.timers) == 1
        guards.close()
        assert not loop.live()

    run(main())


def test_a_nearer_deadline_moves_the_timer_and_the_far_one_is_kept(counting):
    loop, run = counting

    async def main():
        guards = Guards(loop)
        far = asyncio.create_task(waits(guards, 0.06, "far"))
        await until_waiting(guards, 1)
        with pytest.raises(Timeout, match="near"):
            await waits(guards, 0.02, "near")
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
def test_anything_else_is_refused(timeout):
    with pytest.raises(BadRequest, match=r"^bad_request: timeout: expected a positive number of seconds, got "):
        seconds_of(timeout, 30.0)


def test_a_time_bound_that_no_clock_can_count_is_refused():
    with pytest.raises(BadRequest, match=r"^bad_request: timeout: expected"):
        seconds_of(10**400, 30.0)


async def test_a_deadline_beyond_all_time_is_no_deadline(guards):
    with guards.within(1e308, "it"):
        await in_the_next_turn_of_the_loop()
