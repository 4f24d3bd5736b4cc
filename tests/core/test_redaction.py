"""`Kernel(redact=…)`: nobody who reads events sees what was taken out, and everything else stays as it was."""

import asyncio
import json
import logging
import threading
from collections import OrderedDict
from functools import partial
from uuid import UUID

import pytest
from tests.core.scripted import SCRIPTED, scripted

from amplifier_core import BadRequest, Internal, Kernel, KernelError, Plan, Unreachable
from amplifier_core._events.bus import Bus
from amplifier_core._events.redaction import Redaction
from amplifier_core._protocol.event import Event, SizeLimit
from amplifier_core._protocol.ids import Ids
from amplifier_core.hookspecs import TRANSPORTS
from amplifier_core.testing import SteadyClock, seeded_entropy

ECHO, HOOK = "/mnt/tools/echo", "/mnt/hooks/hook"
SECRET = "hunter2"
MARK = {"$redacted": True}


def without_secrets(value):
    """Give a value with no secret in it: what an embedder would write."""
    if isinstance(value, dict):
        return {without_secrets(key): without_secrets(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_secrets(child) for child in value]
    return value.replace(SECRET, "…") if isinstance(value, str) else value


class Lines:
    """A sink that keeps its lines, and fails with what they said at events of one name."""

    def __init__(self, fails_at=None):
        self.lines = []
        self._fails_at = fails_at

    def write(self, line):
        if json.loads(line)["event"] == self._fails_at:
            raise OSError(f"cannot take {line!r}")
        self.lines.append(line)

    def events(self, name=None):
        return [event for line in self.lines if name in (None, (event := json.loads(line))["event"])]

    def close(self):
        pass


@pytest.fixture
def sink():
    return Lines()


@pytest.fixture
def opened(sink, log):
    """Open a kernel that redacts, with a sink and a log."""

    def kernel(redact, **more):
        return Kernel(event_log=log, sinks=[sink], isolation=False, redact=redact, **more)

    return kernel


REDACTED_BY = pytest.mark.parametrize(
    "redact", [["$..password", "$..text"], without_secrets], ids=["paths", "function"]
)

LOUD = """
import json, os, sys
for line in sys.stdin:
    r = json.loads(line)
    d = {"name": "loud", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
    if r["method"] == "invoke" and r["params"]["op"] == "exit":
        print("hunter2 is the password", file=sys.stderr, flush=True)
        os._exit(3)
    if r["method"] == "invoke":
        print("hunter2 is no protocol", flush=True)
    a = {"health": {"status": "ok"}, "describe": d, "invoke": {"password": "hunter2"}}[r["method"]]
    told = [{"event": "my:own", "data": {"password": "hunter2"}}, {"event": "hunter2", "data": {}}]
    more = {"events": told} if r["method"] == "invoke" else {}
    print(json.dumps({"id": r["id"], "ok": True, "result": a, **more}), flush=True)
"""


def loud():
    transport = {"type": "stdio", "command": ["python3", "-c", LOUD]}
    return {"name": "loud", "kind": "tool", "capabilities": [], "transport": transport}


@REDACTED_BY
async def test_arguments_and_results_are_whole_for_the_module_its_caller_and_policy(opened, sink, module, redact):
    seen = []

    async def policy(event):
        seen.append(event.data.get("args"))
        return {"decision": "allow"}

    async with opened(redact) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.register_hook("policy:request", policy)
        args = {"password": SECRET, "user": "me"}
        assert await session.invoke(ECHO, "echo", args) == args
        with pytest.raises(KernelError) as caught:
            await session.invoke(ECHO, "fail", {"code": "my_code", "message": "no", "details": {"password": SECRET}})
    assert caught.value.details["password"] == SECRET
    assert seen[0] == args
    done, failed = sink.events("module:invoke")
    taken = MARK if isinstance(redact, list) else "…"
    assert done["data"] == {"op": "echo", "args": {"password": taken, "user": "me"}, "result": done["data"]["args"]}
    assert failed["error"]["details"]["password"] == taken
    assert (failed["error"]["code"], failed["status"]) == ("my_code", "error")


async def test_nothing_that_is_written_or_observed_or_warned_of_has_what_a_function_takes_out(
    opened, sink, module, tmp_path, log, caplog
):
    caplog.set_level(logging.DEBUG)
    heard = []

    async def observe(event):
        heard.append((event.data, event.error))
        if event.event == "my:event":
            raise ValueError(f"no {SECRET}")

    async def fails(event):
        raise ValueError(f"no {SECRET}")

    async with opened(without_secrets, event_starts=True) as kernel:
        session = await kernel.session.create(Plan(SECRET, {"password": SECRET}))
        observer = module("hook.py", tmp_path / "heard", kind="hook")
        await session.mount("/mnt/hooks", observer, trusted=True)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.mount("/mnt/tools", loud(), trusted=True)
        await session.register_hook("*", observe)
        await session.register_hook("*", HOOK)
        await session.context.set_fragment("a", SECRET)
        session.emit("my:event", {SECRET: SECRET, "other": {SECRET}})
        session.emit(f"not a name {SECRET}", {})
        thread = threading.Thread(target=session.emit, args=("my:event", {"deep": [[SECRET]]}))
        thread.start()
        thread.join()
        with session.span("step", data={"a": SECRET}):
            await session.invoke(ECHO, "echo", {"a": SECRET})
        with pytest.raises(KernelError, match=SECRET), session.span("step"):
            await session.invoke(ECHO, "fail", {"code": "x", "message": SECRET, "details": {"a": SECRET}})
        assert await session.invoke("/mnt/tools/loud", "op", {}) == {"password": SECRET}
        with pytest.raises(Unreachable) as caught:
            await session.invoke("/mnt/tools/loud", "exit", {"a": SECRET})
        assert SECRET in caught.value.details["stderr"]
        await session.register_hook("policy:request", fails)
        with pytest.raises(KernelError, match=SECRET):
            await session.invoke(ECHO, "echo", {"a": SECRET})
    names = {event["event"] for event in sink.events()}
    assert {"hook:error", "events:dropped", "module:noise", "module:exit", "my:own", "session:span"} <= names
    assert SECRET not in b"".join(sink.lines).decode()
    assert SECRET not in log.read_text()
    assert len(heard) > 20
    assert SECRET not in repr(heard)
    assert SECRET not in (tmp_path / "heard").read_text()
    assert len((tmp_path / "heard").read_text()) > 1000
    assert len(caplog.records) > 3
    assert SECRET not in caplog.text


async def test_warnings_say_what_happened_without_quoting_events(opened, caplog):
    async def fails(event):
        raise ValueError(SECRET)

    async with opened(["$.error.message"]) as kernel:
        session = await kernel.session.create(Plan("x"))
        session.emit(SECRET, {})
        await session.register_hook("my:event", fails)
        session.emit("my:event", {})
        await session.mount("/mnt/tools", loud(), trusted=True)
        await session.invoke("/mnt/tools/loud", "op", {})
        await session.register_hook("policy:request", fails)
        with pytest.raises(KernelError):
            await session.invoke("/mnt/tools/loud", "op", {})
    name = "test_warnings_say_what_happened_without_quoting_events.<locals>.fails"
    assert sorted(record.getMessage() for record in caplog.records) == [
        "/mnt/tools/loud: an event was dropped: the log says more",
        "/mnt/tools/loud: lines of stdout that were no protocol: 1: the log says more",
        "an event was dropped: the log says more",
        f"observer {name} failed: the log says more",
        f"policy hook {name} failed, which denies: the log says more",
    ]


async def test_a_sink_that_fails_has_seen_no_more(log, caplog):
    broken, whole = Lines(fails_at="my:event"), Lines()
    with pytest.raises(Internal) as caught:
        async with Kernel(event_log=False, sinks=[broken, whole], redact=["$..password"]) as kernel:
            (await kernel.session.create(Plan("x"))).emit("my:event", {"password": SECRET})
    assert SECRET not in f"{caught.value} {caught.value.details} {caplog.text}"
    assert whole.events("sink:error")
    assert SECRET not in b"".join(whole.lines).decode()


async def test_the_question_to_a_hook_that_is_a_module_is_redacted_in_the_event_of_its_call(
    opened, sink, module, tmp_path
):
    told = tmp_path / "heard"
    for redact in (["$.data.args.password"], redact_arguments):
        sink.lines.clear()
        async with opened(redact) as kernel:
            session = await kernel.session.create(Plan("x"))
            await session.mount("/mnt/hooks", module("hook.py", told, "allow", kind="hook"), trusted=True)
            await session.mount("/mnt/tools", module("echo.py"), trusted=True)
            await session.register_hook("policy:request", HOOK)
            await session.invoke(ECHO, "echo", {"password": SECRET})
        asked = sink.events("module:invoke")[0]
        assert asked["module"] == HOOK
        question = asked["data"]["args"]["event"]
        assert question["event"] == "policy:request"
        assert question["data"]["args"] == {"password": MARK}
        assert question["data"]["op"] == "echo"
        assert SECRET in told.read_text()
        told.unlink()


def redact_arguments(event):
    args = event.get("data", {}).get("args")
    if isinstance(args, dict) and "password" in args:
        event["data"]["args"] = {**args, "password": MARK}
        event["id"] = event["event"] = event["session_id"] = "forged"
    return event


# --- what stays

STRANGE = {
    "integers": [2**63, 2**64, -(2**200), 0, -1],
    "floats": [1.0, 1, -0.0, 1e300, 1e-300, 0.1, 5e-324, 123456789012345.6],
    "a.b": {"": None, "$redacted": False, "ä\u2028\x7f😀": "\x00\u2029"},
    "deep": json.loads("[" * 150 + "1" + "]" * 150),
    "wide": list(range(300)),
}


async def run(redact, module):
    sink = Lines()
    clock, entropy = SteadyClock(), seeded_entropy(7)
    async with Kernel(event_log=False, sinks=[sink], redact=redact, clock=clock, entropy=entropy) as kernel:
        session = await kernel.session.create(Plan("x", STRANGE))
        await session.mount("/mnt/tools", scripted(), trusted=True)
        await session.invoke("/mnt/tools/m", "op", STRANGE)
        session.emit("my:event", {**STRANGE, "large": "x" * 10_000, "id": UUID(int=5), "none": None})
        session.emit("my:event")
        for path in ("/mnt/tools/none", "x" * 1000):
            with pytest.raises(KernelError):
                await session.invoke(path, "op", {})
    return sink.lines


@pytest.mark.parametrize("redact", [["$..nothing", "$.data.wide[999]"], lambda event: event], ids=["paths", "function"])
async def test_what_is_not_taken_out_stays_as_it_is_to_the_byte(site, module, redact):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    assert await run(redact, module) == await run(None, module)


@pytest.mark.parametrize("limit", [None, 100_000])
async def test_it_holds_whatever_the_limit_is(opened, sink, limit):
    async with opened(["$..password", "$.data.list[1:]".replace("[1:]", "[1]")], event_limit=limit) as kernel:
        session = await kernel.session.create(Plan("x"))
        session.emit("my:event", {"a": "x" * 50_000, "list": [{"password": 1}, 2, 3], "p": {"x.y": {"password": [1]}}})
    (event,) = sink.events("my:event")
    assert event["data"] == {"a": "x" * 50_000, "list": [{"password": MARK}, MARK, 3], "p": {"x.y": {"password": MARK}}}


async def test_values_nest_as_deep_as_in_a_message(opened, sink, site):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    deep = {"a": json.loads("[" * 190 + '{"password":1}' + "]" * 190)}
    for redact in (["$..password"], lambda event: event):
        sink.lines.clear()
        async with opened(redact) as kernel:
            session = await kernel.session.create(Plan("x"))
            await session.mount("/mnt/tools", scripted(), trusted=True)
            await session.invoke("/mnt/tools/m", "op", deep)
        (event,) = sink.events("module:invoke")
        assert event["status"] == "ok"
        assert json.dumps(event["data"]["args"]).startswith('{"a": ' + "[" * 190)
        assert (walk(event["data"]["args"]["a"])["password"] == MARK) is isinstance(redact, list)


def walk(value):
    while isinstance(value, list):
        (value,) = value
    return value


# --- what may change


async def test_the_envelope_is_the_kernels_whatever_a_function_returns(opened, sink):
    def forges(event):
        kept = dict.fromkeys(event, "forged")
        return {**kept, "data": {"n": 1}, "error": {"code": "x", "message": "y", "more": 1}, "new": 1}

    async with opened(forges) as kernel:
        session = await kernel.session.create(Plan("x"))
        session.emit("my:event", {"a": 1})
        session.emit("my:event", {"a": {1}})
    events = sink.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    whole, faulty = sink.events("my:event")
    assert (whole["component"], whole["session_id"]) == ("kernel", session.session_id)
    assert whole["data"] == {"n": 1}
    assert not {"error", "new"} & whole.keys()
    assert faulty["error"] == {"code": "x", "message": "y"}


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        (["$.error.message"], {"code": "c", "message": "redacted", "details": {"a": 1, "module": ECHO}}),
        (["$.error.code"], {"code": "redacted", "message": "m", "details": {"a": 1, "module": ECHO}}),
        (["$.error.details"], {"code": "c", "message": "m", "details": MARK}),
        (["$.error.details.*"], {"code": "c", "message": "m", "details": {"a": MARK, "module": MARK}}),
        (["$.error.*"], {"code": "redacted", "message": "redacted", "details": MARK}),
        (["$.error"], {"code": "redacted", "message": "redacted", "details": MARK}),
        (["$['error', 'data']".replace(", 'data'", "")], {"code": "redacted", "message": "redacted", "details": MARK}),
    ],
)
async def test_an_error_stays_an_error(opened, sink, module, paths, error):
    async with opened(paths) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        with pytest.raises(KernelError, match="^c: m$"):
            await session.invoke(ECHO, "fail", {"code": "c", "message": "m", "details": {"a": 1}})
    (event,) = sink.events("module:invoke")
    assert event["error"] == error
    assert event["data"]["op"] == "fail"


@pytest.mark.parametrize("path", ["$", "$.*", "$.data", "$..*", "$[*]"])
async def test_all_data_may_be_taken_out(opened, sink, path):
    async with opened([path]):
        pass
    start, end = sink.events()
    assert start["data"] == MARK
    assert "data" not in end


async def test_a_function_may_leave_nothing(opened, sink):
    async with opened(lambda event: {}) as kernel:
        (await kernel.session.create(Plan("x"))).emit("my:event", {"a": {1}, "b": 1})
    (event,) = sink.events("my:event")
    assert "data" not in event
    assert event["error"] == {"code": "redacted", "message": "redacted", "details": MARK}


async def test_what_a_function_puts_in_is_held_against_the_limit(opened, sink):
    def grows(event):
        return {"data": {"a": "x" * 20_000, "id": UUID(int=5), "pair": (1, 2)}}

    async with opened(grows):
        pass
    identity = "00000000-0000-0000-0000-000000000005"
    assert sink.events("kernel:start")[0]["data"] == {"a": {"$omitted": 20_002}, "id": identity, "pair": [1, 2]}


# --- a function that fails


class Teller(Exception):
    pass


def raises(event):
    raise Teller(SECRET)


def cancels(event):
    raise asyncio.CancelledError(SECRET)


async def answers(event):
    return event


def loops(event):
    event["data"]["self"] = event["data"]
    return event


def recurses(event):
    return recurses(event)


RETURNED = "expected the event from it, got"
NO_OBJECT = "it returned data or an error that are no object"
FAILING = {
    "raises": (raises, "Teller"),
    "cancels": (cancels, "CancelledError"),
    "errs": (lambda event: event["id"].strip(5), "TypeError"),
    "returns nothing": (lambda event: event["data"].clear(), f"{RETURNED} NoneType"),
    "returns text": (lambda event: SECRET, f"{RETURNED} str"),
    "returns true": (lambda event: True, f"{RETURNED} bool"),
    "returns a subclass": (OrderedDict, f"{RETURNED} OrderedDict"),
    "returns a coroutine": (partial(lambda function, event: function(event), answers), f"{RETURNED} coroutine"),
    "data is text": (lambda event: {**event, "data": SECRET}, NO_OBJECT),
    "data is a list": (lambda event: {**event, "data": [1]}, NO_OBJECT),
    "error is text": (lambda event: {"error": SECRET}, NO_OBJECT),
    "a set": (lambda event: {**event, "data": {"a": {SECRET}}}, "NotJson"),
    "no number": (lambda event: {**event, "data": {"a": float("nan")}}, "NotJson"),
    "a key that is no text": (lambda event: {**event, "data": {5: 1}}, "NotJson"),
    "no Unicode": (lambda event: {**event, "data": {"a": "\ud800"}}, "NotJson"),
    "a circle": (loops, "NotJson"),
    "no end": (recurses, "RecursionError"),
}


@pytest.mark.parametrize("name", FAILING)
async def test_a_function_that_fails_shows_nothing(opened, sink, log, caplog, name):
    function, why = FAILING[name]
    async with opened(function) as kernel:
        session = await kernel.session.create(Plan("x", {"password": SECRET}))
        session.emit("my:event", {"password": SECRET, "not json": {SECRET}})
        heard = []

        async def observe(event):
            heard.append(event)

        await session.register_hook("my:event", observe)
        session.emit("my:event", {"password": SECRET, "not json": {SECRET}})
    error = {"code": "internal", "message": f"redact failed ({why}): data and error are left out"}
    first, second = sink.events("my:event")
    for event in (first, second):
        assert (event["data"], event["error"], event["status"]) == (MARK, error, "error")
    assert heard[0].id == second["id"]
    assert heard[0].error == error
    assert SECRET not in log.read_text() + caplog.text
    assert {record.getMessage().partition(": ")[0] for record in caplog.records} == {f"redact failed ({why})"}
    assert len(caplog.records) <= 2


async def test_an_event_that_a_function_emits_itself_shows_nothing(opened, sink):
    sessions = []

    def emits(event):
        if sessions:
            sessions[0].emit("my:inner", {"password": SECRET})
        return event

    async with opened(emits) as kernel:
        sessions.append(await kernel.session.create(Plan("x")))
        sessions[0].emit("my:event", {"a": 1})
        sessions.clear()
    (inner,), (outer,) = sink.events("my:inner"), sink.events("my:event")
    assert inner["error"]["message"] == "redact failed (it emits an event itself): data and error are left out"
    assert (inner["data"], outer["data"]) == (MARK, {"a": 1})


class Redactor:
    def __call__(self, event):
        return {}


class AsyncRedactor:
    async def __call__(self, event):
        return event


def test_any_callable_may_be_the_function():
    for redact in (Redactor(), partial(lambda _, event: event, 1), dict):
        Kernel(event_log=False, redact=redact)


PATH = "expected one of $, .name, ['name'], [n], .*, [*], and .. before any of them; nothing else is known"
BELOW = "expected a path below $.data or $.error: the rest of an event stays"


@pytest.mark.parametrize(
    ("redact", "problem"),
    [
        ("$..password", "redact: expected a function or a list of JSON paths, got '$..password'"),
        (5, "redact: expected a function or a list of JSON paths, got 5"),
        ({"$..a": 1}, "redact: expected a function or a list of JSON paths, got {'$..a': 1}"),
        ([], "redact: expected 1 to 256 JSON paths, got 0"),
        (["$..a"] * 257, "redact: expected 1 to 256 JSON paths, got 257"),
        (["$..a", 5], "redact[1]: expected a JSON path, got int"),
        (["password"], f"redact[0]: 'password': character 1: {PATH}"),
        (["$.session_id"], f"redact[0]: '$.session_id': {BELOW}"),
        (["$['id']"], f"redact[0]: \"$['id']\": {BELOW}"),
        (["$[0]"], f"redact[0]: '$[0]': {BELOW}"),
        (answers, "redact: expected a plain function, got an async one"),
        (AsyncRedactor(), "redact: expected a plain function, got an async one"),
    ],
)
def test_what_is_neither_a_function_nor_paths_is_refused(redact, problem):
    with pytest.raises(BadRequest) as caught:
        Kernel(event_log=False, redact=redact)
    assert caught.value.message == problem


def test_a_digest_would_tell_what_is_taken_out():
    for redact in (["$..password"], without_secrets):
        with pytest.raises(BadRequest, match="event_sha256: expected False where redact is given: a digest would tell"):
            Kernel(event_log=False, redact=redact, event_sha256=True)


async def test_a_value_that_is_too_large_is_told_by_its_size_alone(opened, sink, site):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    async with opened(["$..nothing"]) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", scripted(), trusted=True)
        await session.invoke("/mnt/tools/m", "op", {"a": "x" * 10_000})
    assert sink.events("module:invoke")[0]["data"]["args"] == {"$omitted": 10_008}


async def test_two_tasks_may_emit_at_once(opened, sink):
    async with opened(without_secrets) as kernel:
        session = await kernel.session.create(Plan("x"))

        async def emit(n):
            for m in range(10):
                session.emit("my:event", {"n": n, "m": m, "secret": SECRET})
                await asyncio.sleep(0)

        await asyncio.gather(*(emit(n) for n in range(5)))
    assert len([event for event in sink.events("my:event") if event["data"]["secret"] == "…"]) == 50


# --- what others send


def fragile(event):
    """Change an event as if each had what those of the kernel have."""
    if event["event"] == "policy:request":
        event["data"]["path"] = event["data"]["path"].upper()
    if "error" in event:
        event["error"]["message"] = event["error"]["message"].replace(SECRET, "…")
    return event


FORGED = [
    {"event": "policy:request", "data": {}},
    {"event": "policy:request", "data": {"path": 1}},
    {"event": "policy:request", "data": {"path": "x"}, "error": "x"},
    {"event": "policy:request", "data": {"path": "x"}, "error": []},
]


@pytest.mark.parametrize("redact", [["$..password"], fragile], ids=["paths", "function"])
@pytest.mark.parametrize("forged", FORGED)
async def test_a_question_that_a_caller_made_up_hides_nothing_else(opened, sink, site, redact, forged):
    site.install(TRANSPORTS, "scripted", SCRIPTED)
    async with opened(redact) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/tools", scripted(), trusted=True)
        await session.invoke("/mnt/tools/m", "op", {"event": forged, "file": "/etc/shadow"})
    (event,) = sink.events("module:invoke")
    assert (event["status"], event["data"]["op"], "error" in event) == ("ok", "op", False)
    assert event["data"]["args"]["file"] == "/etc/shadow"


async def test_a_function_that_fails_at_a_question_shows_nothing_of_it(opened, sink, module, tmp_path, caplog):
    def fails(event):
        return None if event["event"] == "policy:request" else event

    async with opened(fails) as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.mount("/mnt/hooks", module("hook.py", tmp_path / "heard", "allow", kind="hook"), trusted=True)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.register_hook("policy:request", HOOK)
        with caplog.at_level(logging.WARNING, "amplifier_core"):
            await session.invoke(ECHO, "echo", {"user": SECRET})
    asked = sink.events("module:invoke")[0]["data"]["args"]["event"]
    assert (asked["event"], asked["data"]) == ("policy:request", MARK)
    assert "redact failed (expected the event from it, got NoneType): a policy:request is in the log" in caplog.text


async def test_what_a_warning_makes_a_program_emit_comes_after_the_event(opened, sink):
    def fails(event):
        return None if event["event"] == "my:event" else event

    async with opened(fails) as kernel:
        session = await kernel.session.create(Plan("x"))

        class Bridge(logging.Handler):
            def emit(self, record):
                session.emit("log:warning", {"text": record.getMessage()})

        bridge = Bridge()
        logger = logging.getLogger("amplifier_core")
        logger.addHandler(bridge)
        try:
            session.emit("my:event", {"n": 1})
        finally:
            logger.removeHandler(bridge)
    assert sink.events("log:warning")
    assert [event["seq"] for event in sink.events()] == list(range(1, len(sink.lines) + 1))


@pytest.mark.parametrize("part", ["data", "error"])
@pytest.mark.parametrize("redact", [["$..password"], without_secrets], ids=["paths", "function"])
def test_what_is_far_too_large_is_left_out_before(part, redact):
    seen = []

    def watched(event):
        seen.append(event)
        return without_secrets(event)

    sink = Lines()
    bus = Bus(SteadyClock(), Ids(), [sink], SizeLimit(), Redaction(redact if type(redact) is list else watched))
    told = {"many": [{"password": SECRET}] * 5000, "stderr": f"{SECRET} " * 2000, "password": SECRET}
    told |= {f"n{n}": "x" * 1000 for n in range(100)}
    given = {"data": told} if part == "data" else {"error": {"code": "c", "message": "m", "details": told}}
    bus.publish(Event("i", 1.0, "my:event", "kernel", 1, **given))
    (event,) = sink.events()
    shown = event["data"] if part == "data" else event["error"]["details"]
    assert shown["many"] == {"$omitted": len(json.dumps(told["many"], separators=(",", ":")))}
    assert SECRET not in json.dumps({**shown, "stderr": ""})
    assert shown["stderr"]
    assert len(shown) - 1 + shown["$omitted_members"] == len(told)
    for whole in seen:
        stderr = (whole["data"] if part == "data" else whole["error"]["details"])["stderr"]
        assert stderr == told["stderr"]  # half a secret at the cut would be found by nobody
        assert len(json.dumps(whole)) < 100_000
