"""What becomes of an invocation: values, errors, chunks, turns, and calls that are given up."""

import asyncio
import contextvars
import threading

import pytest
from tests.inproc.objects import CAPABILITIES, Plain, Stop
from tests.scopes import check_scopes

from amplifier_core import BadRequest, Internal, KernelError, Timeout, Unreachable, UnsupportedOp
from amplifier_core.hookspecs import Chunks
from amplifier_transport_inproc import descriptor_of, open_transport

BOTH = pytest.mark.parametrize("kind", ["plain", "blocking"])


@pytest.fixture
def module(request, kind):
    """An object with `async` functions, or one with plain functions."""
    return request.getfixturevalue(kind)


def opened(module, notify=None):
    return open_transport(descriptor_of(module), notify)


async def until(true):
    """Wait for what a thread does."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


@BOTH
async def test_values_are_copies(session, mount, module):
    path = await mount(module)
    given = {"a": [1, {"b": None}]}
    result = await session.invoke(path, "echo", {"value": given})
    assert result == given
    assert result is not given
    assert result["a"] is not given["a"]


@BOTH
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("set", r"result.rows\[1\].a: expected JSON, got set"),
        ("nan", "result: expected a finite number, got nan"),
        ("deep", "result: nested more than 200 levels deep"),
        ("foreign", r"fail raised ValueError: no \\udc?800 text"),
        ("exit", "fail raised SystemExit: 3"),
        ("base", "raised Stop: now"),
        ("kernel", "fail raised Unreachable: unreachable: the other one is gone"),
        ("details", "error.details.what: expected JSON, got object"),
    ],
)
async def test_what_breaks_the_contract_is_internal(session, mount, module, how, said):
    path = await mount(module)
    with pytest.raises(Internal, match=said):
        await session.invoke(path, "fail", {"how": how})
    assert await session.invoke(path, "echo", {"value": 1}) == 1


@BOTH
async def test_an_exception_is_the_cause_and_its_traceback_is_in_the_log(session, mount, module, events):
    path = await mount(module)
    with pytest.raises(Internal) as caught:
        await session.invoke(path, "fail", {"how": "foreign"})
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.replied is False
    (failed,) = events("module:invoke")
    assert "objects.py" in failed["error"]["details"]["traceback"]
    assert failed["error"]["details"]["causes"] == ["ValueError: no \\ud800 text"]


@BOTH
async def test_an_error_of_the_protocol_is_the_reply(session, mount, module):
    path = await mount(module)
    with pytest.raises(BadRequest, match="args.how: expected another one") as caught:
        await session.invoke(path, "fail", {"how": "input"})
    assert caught.value.replied
    assert caught.value.details["path"] == "args.how"
    with pytest.raises(KernelError, match="buy some") as raised:
        await session.invoke(path, "fail", {"how": "own"})
    assert (raised.value.code, raised.value.details["colour"]) == ("out_of_ink", "cyan")


async def test_an_unknown_op_is_the_objects_to_refuse(session, mount, plain):
    with pytest.raises(UnsupportedOp, match="plain does not know other"):
        await session.invoke(await mount(plain), "other", {})


@BOTH
async def test_an_object_that_cancels_itself_fails_alone(session, mount, module):
    path = await mount(module)
    with pytest.raises(Internal, match="it cancelled itself|fail raised CancelledError"):
        await session.invoke(path, "fail", {"how": "cancel"})
    assert await session.invoke(path, "echo", {"value": 1}) == 1


@BOTH
async def test_a_reply_is_held_to_the_bounds_of_any_other(session, mount, module):
    path = await mount(module, limits={"message_bytes": 1 << 19})
    with pytest.raises(Internal, match="reply: expected at most 524288 bytes"):
        await session.invoke(path, "fail", {"how": "large"})
    await session.unmount(path)
    path = await mount(module, limits={"message_bytes": 4 << 20})
    assert len(await session.invoke(path, "fail", {"how": "large"})) == 1 << 20
    with pytest.raises(Internal, match="reply: .*memory"):
        await session.invoke(path, "fail", {"how": "wide"})


async def test_a_plain_function_runs_in_a_thread(session, mount, blocking):
    assert await session.invoke(await mount(blocking), "thread", {}) is False


async def test_an_async_function_sees_the_callers_context_variables_and_changes_its_own(session, mount, plain):
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def look(_op, args, _context):
        seen = variable.get()
        variable.set(args["value"])
        return seen

    plain.invoke = look
    path = await mount(plain)
    variable.set(1)
    assert await session.invoke(path, "echo", {"value": 2}) == 1
    assert variable.get() == 1


async def test_an_invocation_knows_its_ids_and_its_time(session, mount, plain):
    told = await session.invoke(await mount(plain), "ids", {}, timeout=20.0)
    assert told["ids"][0] == session.session_id
    assert all(told["ids"])
    assert 0 < told["left"] <= 20
    assert told["cancelled"] is False


async def test_events_come_with_the_reply(session, mount, plain, events):
    path = await mount(plain)
    await session.invoke(path, "tell", {})
    assert [event.get("data", {}) for event in events("plain:told")] == [{"n": 1}, {}]
    with pytest.raises(BadRequest):
        await session.invoke(path, "tell", {"how": "input"})
    assert len(events("plain:told")) == 4


async def test_system_calls_are_made_over_turns(session, mount, plain, events):
    async def allow(_event):
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow)
    plain.capabilities = CAPABILITIES
    told = await session.invoke(await mount(plain), "steps", {"n": 1})
    assert told == {"state": "last", "results": [{"ok": True, "result": {}}]}
    assert await session.context.get() == {"fragments": {"key": [1]}}
    (stepped,) = events("plain:stepped")
    assert stepped["data"]["results"][0]["ok"] is True
    assert plain.seen == [{"n": 1}] * 3


# Chunks


@BOTH
async def test_chunks_come_in_order(session, mount, module):
    path = await mount(module)
    stream = session.stream(path, "chunks", {"to": 3})
    assert [chunk["n"] async for chunk in stream] == [0, 1, 2]
    assert await stream.result() == 3
    assert await session.invoke(path, "chunks", {"to": 3}) == 3  # nobody reads them


@BOTH
async def test_a_slow_reader_holds_the_object_back(session, mount, module):
    """More than the buffer takes is sent, and nothing is dropped."""
    path = await mount(module)
    stream = session.stream(path, "chunks", {"to": 40, "size": 1 << 18})
    found = []
    async for chunk in stream:
        found.append(chunk["n"])
        await asyncio.sleep(0)
    assert found == list(range(40))
    assert stream.dropped == 0


async def test_a_thread_that_waits_for_a_reader_ends_with_its_caller(session, mount, blocking):
    path = await mount(blocking)
    with pytest.raises(Timeout):
        async with session.stream(path, "chunks", {"to": 40, "size": 1 << 18}, timeout=0.2) as stream:
            await until(lambda: len(blocking.seen) == 1)
            await stream.result()
    await asyncio.to_thread(blocking.ended.acquire)
    assert blocking.seen[-1] == "cancelled"


@BOTH
async def test_a_chunk_that_is_too_large_or_no_json_is_internal(session, mount, module):
    path = await mount(module, limits={"message_bytes": 4096})
    with pytest.raises(Internal, match="chunk: expected at most 4096 bytes"):
        await session.stream(path, "chunks", {"to": 1, "size": 5000}).result()


# Calls that are given up


async def test_past_the_deadline_an_async_function_is_cancelled(session, mount, plain):
    path = await mount(plain)
    with pytest.raises(Timeout):
        await session.invoke(path, "nap", {}, timeout=0.05)
    await until(lambda: len(plain.seen) == 2)
    assert plain.seen[1] == ("cancelled", True)


async def test_scopes_of_anyio_catch_their_own_cancellations(session, mount, plain):
    await check_scopes(session, await mount(plain), "nap", {})


async def test_an_async_function_that_hides_its_cancellation_holds_nobody_up(session, mount, plain):
    path = await mount(plain)
    with pytest.raises(Timeout):
        await session.invoke(path, "nap", {"stubborn": True}, timeout=0.05)
    with pytest.raises(Timeout) as caught:
        await session.invoke(path, "nap", {}, timeout=0.05)
    assert caught.value.details["given_up"] == 1
    plain.let_go.set()
    assert await session.invoke(path, "nap", {}) == "rested"


async def test_events_that_come_too_late_are_dropped_and_counted(session, mount, plain, events):
    path = await mount(plain)
    with pytest.raises(Timeout):
        await session.invoke(path, "nap", {"stubborn": True, "tell": 2}, timeout=0.05)
    plain.let_go.set()
    await until(lambda: events("events:dropped"))
    (dropped,) = events("events:dropped")
    assert dropped["data"] == {"count": 2, "first": {"event": "plain:late", "data": {}}}
    assert dropped["error"]["code"] == "cancelled"


@pytest.mark.parametrize(
    "text", [b'{"ok":true,"result":0}', b"{", None, b'{"events":[{}],"x":"%b"}' % (b"x" * 300_000)]
)
async def test_of_a_late_reply_without_events_nothing_is_said(answers, text):
    said = []
    connection = opened(answers, lambda *event: said.append(event))
    await connection.start((), None)
    request = asyncio.ensure_future(connection.request("invoke", b'{"op":"nap"}'))
    await answers.begun.wait()
    answers.late = text
    request.cancel()
    await asyncio.wait((request,))
    while connection._requests:
        await asyncio.sleep(0)
    assert not said
    await connection.close()


async def test_a_plain_function_runs_on_and_the_caller_is_told_so(session, mount, blocking):
    path = await mount(blocking)
    with pytest.raises(Timeout) as caught:
        await session.invoke(path, "nap", {}, timeout=0.1)
    assert "nothing can interrupt a plain function" in caught.value.details["runs_on"]
    assert await session.invoke(path, "echo", {"value": 1}) == 1


async def test_a_plain_function_can_look_whether_its_caller_gave_up(session, mount, blocking):
    path = await mount(blocking)
    with pytest.raises(Timeout):
        await session.invoke(path, "watch", {}, timeout=0.1)
    await asyncio.to_thread(blocking.ended.acquire)
    assert blocking.seen == ["cancelled", "cancelled"]


@BOTH
async def test_one_that_was_given_up_keeps_its_place(session, mount, module):
    """With `limits.concurrency` 1 the next one begins when the one that was given up has ended."""
    path = await mount(module, limits={"concurrency": 1})
    with pytest.raises(Timeout):
        await session.invoke(path, "nap", {"stubborn": True}, timeout=0.1)
    with pytest.raises(Timeout, match="its turn: 1 ran, 1 of them for callers that had given up") as caught:
        await session.invoke(path, "echo", {}, timeout=0.05)
    assert caught.value.details["phase"] == "turn"
    waiting = asyncio.ensure_future(session.stream(path, "echo", {"value": 1}).result())
    await asyncio.sleep(0)
    (module.let_go if isinstance(module, Plain) else module.release).set()
    assert await waiting == 1


async def test_sixty_four_plain_functions_run_at_once(session, mount, blocking):
    path = await mount(blocking)
    calls = [asyncio.ensure_future(session.invoke(path, "nap", {})) for _ in range(65)]
    for _ in range(64):
        await asyncio.to_thread(blocking.begun.acquire)
    assert not blocking.begun.acquire(blocking=False)
    blocking.release.set()
    assert await asyncio.gather(*calls) == ["rested"] * 65


async def test_a_thread_whose_loop_is_closed_ends(blocking):
    """What runs on when a program ends finds nobody."""
    before = threading.active_count()

    def program():
        async def main():
            connection = opened(blocking)
            await connection.start((), None)
            task = asyncio.ensure_future(connection.request("invoke", b'{"op":"nap","args":{}}'))
            while not blocking.begun.acquire(blocking=False):
                await asyncio.sleep(0.001)
            task.cancel()
            await connection.close()

        asyncio.run(main())

    await asyncio.to_thread(program)
    blocking.release.set()
    await until(lambda: threading.active_count() <= before + 1)  # that of `to_thread` is kept


# The end


@BOTH
async def test_requests_in_flight_are_unreachable_at_the_end(module):
    connection = opened(module)
    await connection.start((), None)
    asked = [
        asyncio.ensure_future(connection.request("invoke", b'{"op":"%b","args":{}}' % op)) for op in (b"nap", b"nap")
    ]
    if isinstance(module, Plain):
        await module.begun.wait()
    else:
        await asyncio.to_thread(module.begun.acquire)
    await connection.close()
    for request in asked:
        with pytest.raises(Unreachable, match="the module was unmounted"):
            await request
    with pytest.raises(Unreachable):
        await connection.request("health", b"{}")
    await connection.close()


async def test_a_connection_that_never_started_closes(plain):
    await opened(plain).close()


async def test_a_reply_and_a_cancellation_in_one_turn_of_the_loop(blocking):
    """The thread has ended: nothing is said of it."""
    connection = opened(blocking)
    await connection.start((), None)
    request = asyncio.ensure_future(connection.request("invoke", b'{"op":"nap","args":{}}'))
    await asyncio.sleep(0)
    (work,) = connection._requests
    work.add_done_callback(lambda _: request.cancel())
    blocking.release.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await request
    assert not hasattr(caught.value, "clues")
    await connection.close()


# Objects that answer messages


async def test_an_object_may_answer_messages_itself(session, mount, answers):
    path = await mount(answers, limits={"message_bytes": 4096})
    assert await session.invoke(path, "echo", {}) == "here"
    stream = session.stream(path, "chunk", {})
    assert [chunk async for chunk in stream] == [1]


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("nochunk", "chunk: expected a message with a chunk"),
        ("nojson", "chunk: JSON is malformed|chunk: Input data was truncated"),
        ("largechunk", "chunk: expected at most 4096 bytes"),
        ("large", "reply: expected at most 4096 bytes"),
        ("broken", "reply: Input data was truncated"),
        ("exit", "invoke raised SystemExit: 3"),
        ("base", "raised Stop: now"),
        ("text", "reply: expected bytes of JSON, got str"),
        ("boom", "invoke raised ValueError: boom"),
    ],
)
async def test_messages_that_are_none_are_internal(session, mount, answers, op, said):
    path = await mount(answers, limits={"message_bytes": 4096})
    with pytest.raises(Internal, match=said):
        await session.stream(path, op, {}).result()
    assert await session.invoke(path, "echo", {}) == "here"


@pytest.mark.parametrize("error", [Stop("now"), ValueError("now")], ids=["base", "usual"])
@pytest.mark.parametrize("where", ["inproc", "close"])
async def test_whatever_it_raises_at_its_start_or_end_ends_nobody_else(kernel, session, mount, answers, where, error):
    def stop(*_):
        raise error

    setattr(answers, where, stop)
    if where == "inproc":
        with pytest.raises(Internal, match=f"raised {type(error).__name__}: now"):
            await mount(answers)
    else:
        await mount(answers)
    await kernel.close()


async def test_a_request_of_such_an_object_ends_with_its_caller(session, mount, answers):
    path = await mount(answers)
    with pytest.raises(Timeout):
        await session.invoke(path, "nap", {}, timeout=0.05)
    assert await session.invoke(path, "echo", {}) == "here"


async def test_chunks_of_a_reader_that_is_gone(plain):
    connection = opened(plain)
    await connection.start((), None)
    chunks = Chunks()
    chunks.discard()
    reply = await connection.request("invoke", b'{"op":"chunks","args":{"to":3}}', chunks)
    assert reply.result == 3
    await connection.close()
