"""Spans of the embedder's own, and traces that come from a caller outside of the kernel."""

import asyncio
import contextlib
import logging
import threading
from contextvars import copy_context

import pytest
from tests.core.scripted import SCRIPTED, scripted

from amplifier_core import BadRequest, Kernel, Plan
from amplifier_core._protocol.ids import Ids
from amplifier_core._sessions.current import _spans

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"
TOOL = "/mnt/tools/m"


@pytest.fixture
async def mounted(site, session):
    site.install("amplifier_core.transports", "scripted", SCRIPTED)
    await session.mount("/mnt/tools", scripted())
    return session


def ids(event):
    return event["request_id"], event["span_id"]


async def test_what_a_span_holds_is_one_tree(mounted, events):
    with mounted.span("agent.run") as run:
        with mounted.span("agent.step", data={"step": 1}) as step:
            await mounted.invoke(TOOL, "echo", {})
        await mounted.invoke(TOOL, "echo", {})
    await mounted.invoke(TOOL, "echo", {})
    inner, outer = events("session:span")
    first, second, outside = events("module:invoke")
    assert inner["data"] == {"name": "agent.step", "data": {"step": 1}}
    assert outer["data"] == {"name": "agent.run"}
    assert "parent_span_id" not in outer
    assert [each["parent_span_id"] for each in (inner, first, second)] == [run.span_id, step.span_id, run.span_id]
    assert {each["request_id"] for each in (inner, outer, first, second)} == {run.request_id}
    assert outside["request_id"] != run.request_id and "parent_span_id" not in outside
    assert (outer["status"], outer["component"], outer["session_id"]) == ("ok", "kernel", mounted.session_id)
    assert outer["duration_ms"] >= inner["duration_ms"] >= 0


async def test_mounts_events_and_what_is_done_to_sessions_are_in_the_span(site, kernel, session, events):
    site.install("amplifier_core.transports", "scripted", SCRIPTED)

    async def hear(event): ...

    with session.span("setup") as span:
        await session.mount("/mnt/tools", scripted())
        session.emit("agent:ready", {})
        await session.register_hook("agent:*", hear)
        await session.context.set_fragment("k", 1)
        await session.context.get()
        fork = await session.fork()
        await fork.end()
        await (await kernel.session.create(Plan(goal="other", inputs={}))).end()
        await session.unmount(TOOL)
    told = {event["event"]: event for event in events()}
    assert told["mount:add"]["parent_span_id"] == span.span_id
    names = "agent:ready hook:register context:set context:get session:fork session:start session:end mount:remove"
    assert {name: ids(told[name]) for name in names.split()} == dict.fromkeys(
        names.split(), (span.request_id, span.span_id)
    )


async def test_tasks_and_threads_are_in_the_span_in_which_they_start(mounted, events):
    async def step(name):
        with mounted.span(name) as span:
            await asyncio.sleep(0)
            await asyncio.create_task(mounted.invoke(TOOL, name, {}))
            await asyncio.to_thread(mounted.emit, "agent:thought", {"in": name})
            return span

    spans = {span.span_id: span for span in await asyncio.gather(*(step(f"step{n}") for n in range(20)))}
    await asyncio.sleep(0)
    for event in events("module:invoke"):
        assert spans[event["parent_span_id"]]._name == event["data"]["op"]
    for event in events("agent:thought"):
        assert spans[event["span_id"]]._name == event["data"]["in"]
    assert len(events("agent:thought")) == 20


async def test_a_stream_is_in_the_span(mounted, events):
    with mounted.span("read") as span:
        assert [chunk async for chunk in mounted.stream(TOOL, "echo", {})] == []
    assert events("module:invoke")[0]["parent_span_id"] == span.span_id


async def test_a_span_holds_for_each_session_of_its_kernel_and_for_no_other_kernel(mounted, kernel, tmp_path, events):
    async with Kernel(event_log=tmp_path / "other.jsonl", isolation=False) as other_kernel:
        other = await other_kernel.session.create(Plan(goal="other", inputs={}))
        await other.mount("/mnt/tools", scripted())
        fork = await mounted.fork()
        with mounted.span("here") as here, other.span("there", traceparent=here.traceparent) as there:
            await fork.invoke(TOOL, "echo", {})
            assert await other.invoke(TOOL, "echo", {}) == {}
        assert there.request_id == here.request_id
    assert events("module:invoke")[0]["parent_span_id"] == here.span_id
    assert f'"parent_span_id":"{there.span_id}"' in (tmp_path / "other.jsonl").read_text()


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (
            ValueError("no idea"),
            {
                "code": "internal",
                "message": "span step raised ValueError: no idea",
                "details": {"causes": ["ValueError: no idea"]},
            },
        ),
        (
            BadRequest("args.text: expected text", details={"module": TOOL, "stderr": "long"}),
            {"code": "bad_request", "message": "args.text: expected text"},
        ),
        (asyncio.CancelledError(), {"code": "cancelled", "message": "the caller gave up"}),
        (KeyboardInterrupt(), {"code": "internal", "message": "span step raised KeyboardInterrupt"}),
    ],
)
async def test_an_exception_is_the_error_of_the_span_and_goes_on(session, events, raised, error):
    with pytest.raises(type(raised)), session.span("step"):
        raise raised
    (event,) = events("session:span")
    assert event["status"] == "error"
    assert error.items() <= event["error"].items()
    assert "stderr" not in str(event["error"])


async def test_a_span_tells_what_was_found_out_in_it(session, events):
    with session.span("step", data={"a": 1}) as span:
        span.data["tokens"] = 5
    with session.span("step") as span:
        span.data["bad"] = {1, 2}
        span.data["good"] = "x" * 9000
    with session.span("step") as span:
        span.data = 7
    told, left_out, no_object = events("session:span")
    assert told["data"]["data"] == {"a": 1, "tokens": 5}
    assert left_out["data"]["data"] == {"good": {"$omitted": 9002}}
    assert left_out["error"]["code"] == "bad_request" and "bad" in left_out["error"]["message"]
    assert no_object["error"]["message"] == "data: expected an object, got int"


async def test_spans_of_the_embedder_add_no_depth(mounted):
    with contextlib.ExitStack() as stack:
        for n in range(100):
            stack.enter_context(mounted.span(f"step {n}"))
        assert await mounted.invoke(TOOL, "echo", {"a": 1}) == {"a": 1}


def test_the_calls_in_a_span_share_no_count():
    drawn = Ids()
    group = drawn.group(None, None)
    assert drawn.child(group).tree is not drawn.child(group).tree
    call = drawn.child(group)
    assert drawn.child(call).tree is call.tree


async def test_what_a_hook_calls_is_a_part_of_what_it_is_asked_about(mounted, events):
    async def ask_first(event):
        if event.data["op"] == "echo":
            await mounted.invoke(TOOL, "look up", {})
            with mounted.span("think"):
                mounted.emit("policy-log:asked", {})
        return {"decision": "abstain"}

    await mounted.register_hook("policy:request", ask_first)
    await mounted.invoke(TOOL, "echo", {})
    looked, echoed = events("module:invoke")
    assert (looked["data"]["op"], looked["parent_span_id"]) == ("look up", echoed["span_id"])
    assert events("session:span")[0]["parent_span_id"] == echoed["span_id"]
    assert events("policy-log:asked")[0]["request_id"] == echoed["request_id"]


async def test_a_hook_that_is_asked_about_its_own_calls_comes_to_an_end(mounted, events):
    async def ask_again(event):
        await mounted.invoke(TOOL, "echo", {}, traceparent=HEADER)
        return {"decision": "allow"}

    await mounted.register_hook("policy:request", ask_again)
    with pytest.raises(Exception, match="invokes through a session whose calls it is asked about"):
        await mounted.invoke(TOOL, "echo", {})
    assert len(events("module:invoke")) < 40


async def test_what_an_observer_calls_is_in_no_span(mounted, events):
    heard = asyncio.Event()

    async def hear(event):
        await mounted.invoke(TOOL, "echo", {})
        heard.set()

    with mounted.span("setup"):
        await mounted.register_hook("agent:*", hear)
        mounted.emit("agent:ready", {})
        await asyncio.wait_for(heard.wait(), 5)
    assert "parent_span_id" not in events("module:invoke")[0]


async def test_a_trace_of_a_caller_goes_on(mounted, events):
    with mounted.span("serve", traceparent=HEADER) as span:
        assert (span.request_id, span.traceparent) == (TRACE, f"00-{TRACE}-{span.span_id}-01")
        await mounted.invoke(TOOL, "echo", {})
    await mounted.invoke(TOOL, "echo", {}, traceparent=HEADER)
    await mounted.stream(TOOL, "echo", {}, traceparent=HEADER).result()
    (served,) = events("session:span")
    inside, *alone = events("module:invoke")
    assert (served["request_id"], served["parent_span_id"]) == (TRACE, PARENT)
    assert served["data"]["traceparent"] == HEADER
    assert (inside["request_id"], inside["parent_span_id"]) == (TRACE, span.span_id)
    assert "traceparent" not in inside["data"]
    for event in alone:
        assert (event["request_id"], event["parent_span_id"], event["data"]["traceparent"]) == (TRACE, PARENT, HEADER)


async def test_a_call_may_continue_another_trace_than_the_span_that_it_is_made_in(mounted, events):
    with mounted.span("serve"):
        await mounted.invoke(TOOL, "echo", {}, traceparent=HEADER)
    assert events("module:invoke")[0]["parent_span_id"] == PARENT


@pytest.mark.parametrize("header", [HEADER, HEADER[:-2] + "00", f"cc-{TRACE}-{PARENT}-01-what-comes-later"])
async def test_a_traceparent_of_this_or_a_later_version_is_read(session, header):
    with session.span("serve", traceparent=header) as span:
        assert span.request_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        HEADER.upper(),
        HEADER[:-1],
        HEADER + "-more",
        HEADER + "\n",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{PARENT}-01x",
        "00-" + "٣" * 32 + f"-{PARENT}-01",
        "x" * 1_000_000,
    ],
)
async def test_a_traceparent_that_is_not_valid_is_ignored_with_a_warning(mounted, events, caplog, header):
    with caplog.at_level(logging.WARNING), mounted.span("serve", traceparent=header) as span:
        assert span.request_id != TRACE
    await mounted.invoke(TOOL, "echo", {}, traceparent=header)
    assert "parent_span_id" not in events("module:invoke")[0]
    (warning,) = caplog.messages
    assert warning.startswith("traceparent: expected 00-TRACE_ID-PARENT_ID-FLAGS, got ") and len(warning) < 200


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        ("", {}, "name: expected text, got ''"),
        (7, {}, "name: expected text, got 7"),
        ("x" * 129, {}, "name: expected at most 128 characters, got 129"),
        ("step", {"traceparent": HEADER.encode()}, "traceparent: expected text, got bytes"),
        ("step", {"data": [1]}, "data: expected an object, got list"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused(session, name, fields, fault):
    with pytest.raises(BadRequest) as caught:
        session.span(name, **fields)
    assert caught.value.message == fault


async def test_a_traceparent_that_is_no_text_fails_the_call(mounted):
    with pytest.raises(BadRequest, match="traceparent: expected text, got int"):
        await mounted.invoke(TOOL, "echo", {}, traceparent=7)


async def test_a_span_is_used_once_and_has_ids_from_its_beginning_on(session):
    span = session.span("step")
    assert repr(span) == "<SessionSpan step: not begun>"
    with pytest.raises(BadRequest, match="span step has no ids before it begins"):
        _ = span.span_id
    with span:
        assert repr(span) == f"<SessionSpan step: {span.span_id}>"
    with pytest.raises(BadRequest, match="span step has begun already"), span:
        pass


async def test_a_span_ends_once(session, events):
    span = session.span("step")
    span.__exit__(None, None, None)
    with span:
        pass
    span.__exit__(None, None, None)
    assert len(events("session:span")) == 1


async def test_a_span_begins_on_the_loop_of_the_kernel_and_in_an_open_session(session, events):
    span = session.span("step")
    with pytest.raises(BadRequest):
        await asyncio.to_thread(span.__enter__)
    with span:
        await session.end()
    assert events()[-1]["event"] == "session:span"
    with pytest.raises(BadRequest, match="has ended"), session.span("step"):
        pass


async def test_a_span_may_end_in_another_context_than_it_began_in(mounted, events):
    async def steps():
        with mounted.span("steps"):
            yield 1
            yield 2

    generator = steps()
    await asyncio.create_task(anext(generator))
    await asyncio.create_task(generator.aclose())
    await mounted.invoke(TOOL, "echo", {})
    assert events("session:span")[0]["error"]["code"] == "cancelled"
    assert "parent_span_id" not in events("module:invoke")[0]


async def test_a_span_may_end_in_another_thread_or_after_its_kernel(log, events):
    async with Kernel(event_log=log, isolation=False) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        elsewhere, late = session.span("elsewhere"), session.span("late")
        elsewhere.__enter__()
        late.__enter__()
        await asyncio.to_thread(elsewhere.__exit__, None, None, None)
    late.__exit__(None, None, None)
    assert [event["data"]["name"] for event in events("session:span")] == ["elsewhere"]


async def test_spans_may_end_in_any_order(mounted, events):
    def step():
        with mounted.span("first"):
            yield

    generator = step()
    next(generator)
    with mounted.span("second") as second:
        generator.close()
        await mounted.invoke(TOOL, "in second", {})
    await mounted.invoke(TOOL, "after both", {})
    inside, after = events("module:invoke")
    assert inside["parent_span_id"] == second.span_id
    assert "parent_span_id" not in after


async def test_the_end_of_a_span_leaves_those_of_other_kernels(mounted, events, tmp_path):
    async with Kernel(event_log=tmp_path / "other.jsonl", isolation=False) as kernel:
        other = (await kernel.session.create(Plan(goal="other", inputs={}))).span("other")
        other.__enter__()
        with mounted.span("own") as own:
            await mounted.invoke(TOOL, "in both", {})
            other.__exit__(None, None, None)
            await mounted.invoke(TOOL, "in own", {})
    assert {event["parent_span_id"] for event in events("module:invoke")} == {own.span_id}


async def test_the_time_of_a_span_ends_with_it_in_another_thread(log, events):
    now = [0.0]

    class Clock:
        time = monotonic = staticmethod(lambda: now[0])

    async with Kernel(event_log=log, isolation=False, clock=Clock()) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        span = session.span("step")
        span.__enter__()
        now[0] = 1.0
        thread = threading.Thread(target=span.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        now[0] = 9.0  # the loop was busy
    assert [event["duration_ms"] for event in events("session:span")] == [1000]


def test_a_span_that_ends_in_a_thread_after_its_loop_raises_nothing_of_its_own():
    async def begin():
        kernel = await Kernel(event_log=False, isolation=False).open()
        span = (await kernel.session.create(Plan(goal="test", inputs={}))).span("step")
        return span.__enter__()

    raised = []

    def end(span):
        try:
            span.__exit__(None, None, None)
        except BadRequest as error:
            raised.append(error)

    thread = threading.Thread(target=end, args=(asyncio.run(begin()),))
    thread.start()
    thread.join()
    assert not raised


async def test_tasks_that_start_each_other_in_spans_keep_a_bounded_number_of_them(mounted, events):
    def kept():
        return max(len(spans) for spans in copy_context()[_spans].values())

    async def step(left):
        with mounted.span("step") as span:
            if left:
                return await asyncio.create_task(step(left - 1))
            await mounted.invoke(TOOL, "echo", {})
            return kept(), span.span_id

    kept_last, last = await step(400)
    assert kept_last < 300
    await mounted.invoke(TOOL, "echo", {})
    inside, after = events("module:invoke")
    assert inside["parent_span_id"] == last
    assert "parent_span_id" not in after
