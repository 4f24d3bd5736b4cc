"""A recorded run: what its log has, so that it can be done again."""

import asyncio
import itertools
import json

import pytest

from amplifier_core import BadRequest, Kernel, Plan
from amplifier_core._protocol.ids import Ids
from amplifier_core._syscalls.recording import RecordedChunks
from amplifier_core.hookspecs import AREAS, Chunks, Isolation


@pytest.fixture
async def kernel(log):
    async with Kernel(event_log=log, isolation=False, recording=True) as kernel:
        yield kernel


async def test_the_log_says_that_it_is_a_recording_and_by_which_settings(session, log):
    assert json.loads(log.read_bytes().splitlines()[0])["data"]["recording"] == {
        "timeout": 30.0,
        "policy_timeout": 5.0,
        "observer_queue": 1024,
        "fragment_bytes": 1024 * 1024,
    }


async def test_no_value_is_left_out(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    large = {"text": "x" * 100_000}
    await session.invoke("/mnt/tools/echo", "echo", large)
    data = events("module:invoke")[0]["data"]
    assert data["args"] == large and data["result"] == large


async def test_a_mount_is_recorded_from_its_beginning_on_with_its_descriptor_and_description(session, module, events):
    descriptor = module("echo.py", limits={"timeout_ms": 5000}, version="0.1.0")
    await session.mount("/mnt/tools", descriptor, trusted=True)
    names = [event["event"] for event in events()]
    assert names.index("mount:pre_add") < names.index("module:start") < names.index("mount:add")
    (begun,), (added,) = events("mount:pre_add"), events("mount:add")
    assert begun["span_id"] == added["span_id"]
    assert begun["data"] == {
        "descriptor": {
            "name": "echo",
            "kind": "tool",
            "capabilities": [],
            "transport": dict(descriptor.transport),
            "base": str(descriptor.base),
            "version": "0.1.0",
            "limits": {"timeout_ms": 5000},
        },
        "trusted": True,
    }
    assert added["data"]["description"] == await session.describe("/mnt/tools/echo")
    assert added["data"]["connection"]["local"] is True
    assert added["data"]["connection"]["confined"] is False
    assert added["data"]["connection"]["isolation"] is None


async def test_secrets_of_a_transport_are_not_recorded(session, events):
    transport = {"type": "nonesuch", "headers": {"authorization": "hush"}, "url": "http://me:hush@here/?key=hush"}
    with pytest.raises(Exception, match="not installed"):
        await session.mount("/mnt/tools", {"name": "m", "kind": "tool", "transport": transport, "capabilities": []})
    assert "hush" not in str(events())
    assert events("mount:pre_add")[0]["data"]["descriptor"]["transport"]["headers"] == {"authorization": "…"}


async def test_the_turns_of_a_module_are_recorded_with_state_calls_and_events(session, module, events):
    wanted = ["sys:invoke:*", "sys:emit"]
    await session.register_hook("policy:request", allow)
    await session.mount(
        "/mnt/orchestrators", module("caller.py", kind="orchestrator", capabilities=wanted), trusted=True
    )
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    calls = [{"name": "invoke", "args": {"path": "/mnt/tools/echo", "op": "echo", "args": {"n": n}}} for n in (1, 2)]
    await session.invoke("/mnt/orchestrators/caller", "call", {"syscalls": calls, "state": {"n": 3}})
    await session.invoke("/mnt/orchestrators/caller", "emit", {"events": [{"event": "a:b", "data": {"n": 1}}]})
    turn, reply = events("module:reply")
    assert turn["data"] == {"op": "call", "pending": {"syscalls": calls, "state": {"n": 3}}}
    assert reply["data"] == {"op": "emit", "events": [{"event": "a:b", "data": {"n": 1}}], "result": {}}
    invoked = {event["span_id"] for event in events("module:invoke")}
    assert {turn["span_id"], reply["span_id"]} <= invoked


async def test_secrets_of_a_transport_that_a_module_names_are_not_recorded(session, module, events):
    await session.register_hook("policy:request", allow)
    caller = module("caller.py", kind="orchestrator", capabilities=["sys:mount:*"])
    await session.mount("/mnt/orchestrators", caller, trusted=True)
    transport = {"type": "nonesuch", "headers": {"authorization": "hush"}}
    descriptor = {"name": "m", "kind": "tool", "transport": transport, "capabilities": []}
    calls = [{"name": "mount", "args": {"path": "/mnt/tools", "descriptor": each}} for each in (descriptor, 7)]
    await session.invoke("/mnt/orchestrators/caller", "call", {"syscalls": calls})
    turn = events("module:reply")[0]["data"]["pending"]["syscalls"]
    assert turn[0]["args"]["descriptor"]["transport"] == {"type": "nonesuch", "headers": {"authorization": "…"}}
    assert turn[1]["args"]["descriptor"] == 7


async def allow(event):
    return {"decision": "allow"}


async def test_a_question_to_policy_is_recorded_and_each_answer_whole(session, module, events):
    async def grants(event):
        return {"decision": "allow", "capabilities": ["x-files:read"], "scope": "session"}

    async def abstains(event):
        return {"decision": "abstain"}

    await session.register_hook("policy:request", grants)
    await session.register_hook("policy:request", abstains, priority=1)
    await session.mount("/mnt/tools", module("echo.py", capabilities=["x-files:read"]), trusted=True)
    (asked,), (decided,) = events("policy:request"), events("policy:decision")
    assert (asked["span_id"], asked["module"]) == (decided["span_id"], "/mnt/tools/echo")
    assert asked["data"]["args"]["descriptor"]["name"] == "echo"
    first, second = decided["data"]["hooks"]
    assert (first["capabilities"], first["scope"]) == (["x-files:read"], "session")
    assert second["decision"] == "abstain" and "capabilities" not in second


async def test_nobody_is_asked_where_there_is_no_policy(session, module, events):
    await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    await session.invoke("/mnt/tools/echo", "echo", {})
    assert not events("policy:request")


async def test_chunks_are_recorded_in_their_order(session, module, events):
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    stream = session.stream("/mnt/tools/streamer", "count", {"to": 5})
    assert [chunk["n"] async for chunk in stream] == [1, 2, 3, 4, 5]
    chunks = events("module:chunk")
    assert [event["data"]["chunk"]["n"] for event in chunks] == [1, 2, 3, 4, 5]
    assert {event["span_id"] for event in chunks} == {events("module:invoke")[0]["span_id"]}


async def test_a_call_that_waits_for_its_turn_is_recorded_when_it_begins_to(session, module, events):
    await session.mount("/mnt/tools", module("echo.py", limits={"concurrency": 1}), trusted=True)
    await asyncio.gather(*(session.invoke("/mnt/tools/echo", "echo", {"n": n}) for n in (1, 2)))
    names = [event["event"] for event in events() if event["event"] != "module:start"]
    assert names[-5:] == ["module:pre_invoke", "module:wait", "module:invoke", "module:pre_invoke", "module:invoke"]
    (waited,) = events("module:wait")
    assert waited["data"] == {"op": "echo", "args": {"n": 2}}
    assert waited["span_id"] == events("module:invoke")[1]["span_id"]


async def test_a_reply_of_no_shape_asks_for_no_system_calls(session, module, events):
    wanted = ["sys:mounts"]
    await session.register_hook("policy:request", allow)
    await session.mount(
        "/mnt/orchestrators", module("caller.py", kind="orchestrator", capabilities=wanted), trusted=True
    )
    reply = {"ok": True, "result": 1, "pending": {"syscalls": [{"name": "mounts", "args": {}}], "state": None}}
    with pytest.raises(Exception, match="none of the three shapes"):
        await session.invoke("/mnt/orchestrators/caller", "raw", {"reply": reply})
    (recorded,) = events("module:reply")
    assert recorded["data"] == {"op": "raw", **reply}
    assert not [event for event in events("policy:decision") if event["data"]["action"] == "mounts"]


async def test_a_slow_reader_holds_a_recorded_stream_back(session, module, events):
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    stream = session.stream("/mnt/tools/streamer", "count", {"to": 30, "size": 100_000})
    read = 0
    async for _ in stream:
        read += 1
        await asyncio.sleep(0.01)
    assert read == 30 and stream.dropped == 0
    assert len(events("module:chunk")) == 30


def test_the_room_of_a_recorded_stream_is_that_of_its_reader():
    reader, told = Chunks(), []
    recorded = RecordedChunks(reader, told.append)
    assert not recorded.put("x", 300_000)
    recorded.when_room(lambda: told.append("room"))
    assert told == ["x"]
    assert reader.take() == "x"
    assert told == ["x", "room"]
    recorded.count_dropped(2)
    assert reader.dropped == 2


async def test_no_observer_hears_what_only_a_recording_has(session, module):
    heard = []

    async def hear(event):
        heard.append(event.event)

    await session.register_hook("*", hear)
    await session.mount("/mnt/tools", module("streamer.py"), trusted=True)
    await session.stream("/mnt/tools/streamer", "count", {"to": 5}).result()
    await session.end()
    assert "module:invoke" in heard
    assert not {"module:reply", "module:chunk", "mount:pre_add"} & set(heard)


async def test_an_embedder_may_open_the_connections_itself(log):
    opened = []

    def open_transport(descriptor, notify, host):
        opened.append(descriptor.transport["type"])

    async with Kernel(event_log=log, isolation=False, open_transport=open_transport) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        with pytest.raises(Exception, match="transport 'nonesuch' is not installed"):
            await session.mount(
                "/mnt/tools", {"name": "m", "kind": "tool", "transport": {"type": "nonesuch"}, "capabilities": []}
            )
    assert opened == ["nonesuch"]


async def test_a_recording_has_nothing_taken_out(log):
    with pytest.raises(BadRequest, match="recording: a log without the values that redact takes out"):
        Kernel(event_log=log, recording=True, redact=["$..password"])


async def test_an_isolation_may_be_an_object(log, module):
    class Unsound(Isolation):
        name = "mine"
        confines = AREAS

        def trial(self):
            return "it is a trial"

        def unenforced(self, capabilities):
            raise AssertionError

        def plan(self, launch, descriptor):
            raise AssertionError

    async with Kernel(event_log=log, isolation=Unsound()) as kernel:
        assert (await kernel.describe_host())["unusable"] == {"mine": "it is a trial"}


def test_ids_of_a_recording_tell_which_came_first():
    ids = Ids(in_order=True)
    drawn = [ids.root().span_id if n % 2 else ids.session(None).removeprefix("ses_") for n in range(2000)]
    assert drawn == sorted(drawn) and len({*drawn}) == 2000
    assert len({each[:8] for each in drawn}) == 1
    assert not {each[:8] for each in drawn} & {Ids(in_order=True).hex16()[:8]}


def test_ids_of_requests_are_random_in_a_recording_too():
    ids = Ids(in_order=True)
    drawn = [ids.root().request_id for _ in range(100)]
    assert all(one[:8] != other[:8] for one, other in itertools.pairwise(drawn))


class Held(Ids):
    """Holds what asks, until the test lets it go on."""

    def __init__(self):
        super().__init__()
        self.waiting = []
        self.asked = []

    def hold(self, span, hook=None):
        self.asked.append(hook)
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def let_go(self, task, count):
        """Let each go on that asks, and expect nothing of the task before."""
        for number in range(1, count + 1):
            async with asyncio.timeout(20):
                while len(self.waiting) < number:
                    await asyncio.sleep(0.01)
            assert not task.done()
            self.waiting[number - 1].set_result(None)


async def test_ids_may_hold_the_answers_of_hooks_and_system_calls(log, module, tmp_path):
    ids = Held()
    async with Kernel(event_log=log, isolation=False, ids=ids) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", module("caller.py", capabilities=["sys:mounts"]), trusted=True)
        await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", "allow", kind="hook"), trusted=True)
        await session.register_hook("policy:request", "/mnt/hooks/hook")
        calls = {"syscalls": [{"name": "mounts"}]}
        task = asyncio.ensure_future(session.invoke("/mnt/tools/caller", "call", calls))
        await ids.let_go(task, 4)
        assert (await task)["results"][0]["ok"] is True
    hook = "/mnt/hooks/hook"  # asked about the call, and about the system call
    assert ids.asked == [hook, None, hook, None]
