"""Lines of any kind: what is in no span, what never ends, what is too much, and what is no event."""

import json
import subprocess
import sys

import pytest
from tests.otel_sink.conftest import plain
from tests.otel_sink.test_delivery import line

from amplifier_core.testing import check_sink
from amplifier_sink_otel import open_sink

TRACE, SPAN = f"{5:032x}", f"{5:016x}"


@pytest.fixture
def sent(options, collector):
    """Write lines to a sink, close it, and give the spans that came."""

    def send(*lines, **more):
        sink = open_sink(options(**more))
        for each in lines:
            sink.write(each)
        sink.close()
        return collector.spans

    return send


def within(n, name="artifact:write", **fields):
    """Write an event that happened in the span of ``line(4)``."""
    return line(n, event=name, duration_ms=None, request_id=TRACE, span_id=SPAN, **fields)


async def test_the_check_of_sinks_finds_nothing(options):
    found = await check_sink(lambda: open_sink(options()))
    assert [check for check in found if check.problem] == []


WRITE = """
import sys, time
from amplifier_sink_otel import open_sink
sink = open_sink({"endpoint": sys.argv[1]})
one, spent = sys.argv[2].encode(), []
for _ in range(50):
    began = time.perf_counter()
    for _ in range(100):
        sink.write(one)
    spent.append((time.perf_counter() - began) / 100)
sink.close()
print(sorted(spent)[len(spent) // 2])
"""


def test_a_write_costs_less_than_three_microseconds(collector):
    """In a process of its own, which coverage does not trace. It takes a third of one."""
    command = [sys.executable, "-c", WRITE, collector.endpoint, line(1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3e-6


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"id":1}\n',
        b"[" * 100_000 + b"\n",
        line(1, request_id="x" * 32),
        line(1, span_id="00"),
        line(1, parent_span_id="00"),
        line(1, request_id=None),
        line(1, span_id=None),
        line(1, event="session:end", duration_ms=None, request_id=None, span_id=None),
    ],
)
def test_what_is_in_no_span_makes_none(sent, broken):
    assert [span.span_id.hex() for span in sent(broken, line(4))] == [SPAN]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"data": None}, "invoke m"),
        ({"data": {"op": 5, "args": [1]}}, "invoke m"),
        ({"module": None}, "invoke ? x"),
        ({"ts": 1e300, "duration_ms": 1e300}, "invoke m x"),
        ({"ts": -1.0, "duration_ms": -1.0}, "invoke m x"),
        ({"error": {"code": 5}}, "invoke m x"),
        ({"error": [], "status": "error"}, "invoke m x"),
        ({"data": {"op": "o" * 5000}}, f"invoke m {'o' * 1014}…"),
        ({"event": "session:span", "data": {"name": "agent.step", "data": {"n": 1}}}, "agent.step"),
        ({"event": "session:span"}, "session:span"),
        ({"event": "mount:add", "module": None, "data": {"kind": ["tool"]}}, "mount ?"),
    ],
)
def test_a_span_comes_of_any_values(sent, fields, name):
    [span] = sent(line(4, **fields), content=True)
    assert span.name == name
    assert span.start_time_unix_nano <= span.end_time_unix_nano


def test_usage_that_is_none_is_not_told(sent, collector):
    mounted = line(1, event="mount:add", data={"kind": "provider"})
    for n, usage in enumerate(([], {"input_tokens": True}, {"input_tokens": -1}, {"input_tokens": 2**70}, {})):
        sent(mounted, line(4 + n, data={"op": "embeddings", "args": {"model": 5}, "result": {"usage": usage}}))
    told = [span for span in collector.spans if not span.name.startswith("mount")]
    assert {span.name for span in told} == {"embeddings"}
    assert not [name for span in told for name in plain(span.attributes) if "tokens" in name]


def test_events_of_a_span_have_what_the_table_says_and_are_bounded(sent, collector):
    told = within(1, component="/mnt/tools/m", data={"path": "p", "bytes": 3, "text": "s3cret"})
    [span] = sent(told, *(within(n, "my:event") for n in range(2, 200)), line(4))
    assert len(span.events) == 128
    assert span.dropped_events_count == 199 - 128
    assert span.events[0].name == "artifact:write"
    expected = {"amplifier.path": "p", "amplifier.bytes": 3, "amplifier.component": "/mnt/tools/m"}
    assert plain(span.events[0].attributes) == expected
    assert "amplifier.sink.dropped" not in collector.points


def test_what_happened_in_a_span_that_never_ends_is_counted(sent, collector, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._spans._HELD_MAX", 1000)
    others = [line(n, event="my:event", duration_ms=None) for n in range(10, 14)]
    [span] = sent(within(1, "my:event"), *others, line(4))
    assert not span.events
    [(_, point)] = collector.points["amplifier.sink.dropped"]
    assert point.as_int == 5


def test_the_decision_of_policy_ends_no_span_even_with_a_duration(sent):
    [span] = sent(within(1, "policy:decision") and line(4, event="policy:decision", request_id=TRACE), line(4))
    assert [event.name for event in span.events] == ["policy:decision"]


def test_labels_are_bounded(sent, collector):
    sent(*(line(n, error={"code": f"c{n}", "message": ""}) for n in range(2100)))
    points = collector.points["amplifier.invoke.duration"]
    assert len(points) == 2001
    [others] = [point.count for labels, point in points if labels == {"otel.metric.overflow": True}]
    assert others == 100


def test_a_fork_calls_what_its_parent_has_mounted_and_a_mount_that_failed_tells_nothing(sent, collector, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._mounts._MOST", 4)
    mounts = [
        line(1, event="mount:add", session_id="a", data={"kind": "tool"}),
        line(2, event="mount:add", session_id="b", data={"kind": "agent"}),
        line(3, event="mount:add", session_id="c", status="error", data={"kind": "hook"}),
    ]
    sent(*mounts, *(line(n, session_id=session) for n, session in enumerate("abd", 10)))
    assert [span.name for span in collector.spans[3:]] == ["execute_tool m.x", "invoke_agent m", "invoke_agent m"]
    more = [line(20 + n, event="mount:add", module=f"/mnt/tools/{n}", data={"kind": "tool"}) for n in range(4)]
    sent(*mounts, *more, line(30, session_id="a"))
    assert collector.spans[-1].name == "invoke m x"


def test_content_is_cut(sent):
    [span] = sent(line(4, data={"op": "x", "args": {"a": "x" * 9000}, "result": 1}), content=True)
    told = plain(span.attributes)
    assert len(told["amplifier.arguments"]) == 8192
    assert told["amplifier.arguments"].endswith("x…")
    assert told["amplifier.result"] == "1"


def test_many_lines_make_several_messages(sent, collector):
    sent(*(line(n) for n in range(1200)))
    assert sorted(len(scope.spans) for scope in collector.scopes)[-9:] == [128] * 9
    assert len({span.span_id for span in collector.spans}) == 1200


def test_a_line_is_json_of_the_kernel_with_all_that_it_escapes(sent):
    [span] = sent(json.dumps(json.loads(line(4)) | {"module": '/mnt/tools/ä"\u2028\u0000'}).encode())
    assert plain(span.attributes)["amplifier.module"] == '/mnt/tools/ä"\u2028\u0000'
