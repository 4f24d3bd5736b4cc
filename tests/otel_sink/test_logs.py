"""Whole logs as spans: what the sink would have sent, nothing dropped, and an end at the first failure."""

import json
import subprocess
import sys

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.otel_sink.conftest import plain
from tests.otel_sink.test_delivery import line, nobody, told
from tests.otel_sink.test_lines import within

from amplifier_core import BadRequest, Unreachable
from amplifier_sink_otel.logs import LogSpans


def start(kernel, **data):
    return line(0, id=f"evt_{0:024x}{kernel}", event="kernel:start", request_id=None, span_id=None, data=data)


LINES = [
    start("aaaaaaaa", pid=7, platform="Plan 9", versions={"python": "3.13.0", "amplifier-kernel": "0.1.0"}, protocol=1),
    within(1, "my:event"),
    line(4, id=f"evt_{4:024x}aaaaaaaa", parent_span_id="00000000000000ff", data={"op": "x", "traceparent": "00-…"}),
    line(5, id=f"evt_{5:024x}bbbbbbbb", parent_span_id="00000000000000ff"),
    line(6, id=f"evt_{6:024x}bbbbbbbb", event="my:event", duration_ms=None),
    b"torn",
]


def test_a_log_is_sent_message_by_message(collector):
    spans = LogSpans([*LINES, *(line(n) for n in range(100, 400))], {"endpoint": collector.endpoint})
    spans.send()
    assert len(collector.spans) == 302
    assert [len(request.resource_spans[-1].scope_spans[0].spans) for request in collector.traces] == [126, 128, 46]
    assert collector.metrics == []  # a sum of now would be false for then
    assert spans.left_out == 2


def test_kernels_of_a_log_are_told_apart(collector):
    LogSpans(LINES, {"endpoint": collector.endpoint, "service": "shop"}).send()
    first, second = (plain(each.resource.attributes) for each in collector.traces[0].resource_spans)
    assert first["service.instance.id"] == "aaaaaaaa" and second["service.instance.id"] == "bbbbbbbb"
    assert (first["process.pid"], first["os.description"]) == (7, "Plan 9")
    assert (first["process.runtime.version"], first["amplifier.kernel.version"]) == ("3.13.0", "0.1.0")
    assert "process.pid" not in second
    assert first["service.name"] == second["service.name"] == "shop"


def test_the_parent_of_a_trace_that_goes_on_is_a_remote_one(collector):
    LogSpans(LINES, {"endpoint": collector.endpoint}).send()
    continued, other = collector.spans
    assert [span.flags for span in (continued, other)] == [0x300, 0x100]
    assert continued.parent_span_id == other.parent_span_id == bytes.fromhex("00000000000000ff")


def test_more_kernels_than_anybody_looks_at_have_only_their_ids(collector, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._resources._MOST", 1)
    kernels = [start(f"{n:08}", pid=n) + b"" for n in range(3)]
    LogSpans(
        [*kernels, *(line(n, id=f"evt_{n:024x}{n:08}") for n in range(3))], {"endpoint": collector.endpoint}
    ).send()
    told = [plain(each.resource.attributes) for each in collector.traces[0].resource_spans]
    assert [each["service.instance.id"] for each in told] == ["00000000", "00000001", "00000002"]
    assert [each.get("process.pid") for each in told] == [0, None, None]


def test_the_first_message_that_is_not_taken_ends_it(collector, caplog):
    collector.answer = lambda path, body: (401 if collector.paths else 200, {}, b"")
    spans = LogSpans((line(n) for n in range(1000)), {"endpoint": collector.endpoint})
    with pytest.raises(Unreachable) as failed:
        spans.send()
    assert failed.value.message == f"{collector.endpoint}: HTTP status 401"
    assert len(collector.paths) == 2
    assert told(caplog) == []


def test_a_collector_that_is_down_ends_it():
    where = nobody()
    with pytest.raises(Unreachable) as failed:
        LogSpans([line(1)], {"endpoint": where, "timeout": 0.1}).send()
    assert failed.value.message.startswith(f"{where}: ") and "refused" in failed.value.message


def test_a_batch_that_cannot_be_written_ends_it(collector):
    spans = LogSpans([line(1)], {"endpoint": collector.endpoint})
    spans._spans._scope._name = "\ud800"
    with pytest.raises(Unreachable, match="it cannot be written"):
        spans.send()


def test_a_log_is_written_as_the_same_in_json(collector):
    lines = [*LINES, *(line(n) for n in range(100, 300))]
    LogSpans(lines, {"endpoint": collector.endpoint, "content": True}).send()
    written = list(LogSpans(lines, {"content": True}).json())
    assert all(each.endswith(b"\n") and each.count(b"\n") == 1 for each in written)
    messages = [json.loads(each) for each in written]
    span = messages[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (f"{5:032x}", f"{5:016x}", "00000000000000ff")
    assert (span["kind"], span["startTimeUnixNano"]) == (1, "1790000003998500000")
    for message, sent in zip(messages, collector.traces, strict=True):
        for of in message["resourceSpans"]:
            for each in of["scopeSpans"][0]["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    each.pop(name, None)
        for of in sent.resource_spans:
            for each in of.scope_spans[0].spans:
                for name in ("trace_id", "span_id", "parent_span_id"):
                    each.ClearField(name)
        assert ParseDict(message, ExportTraceServiceRequest()) == sent


def test_an_empty_log_is_nothing(collector):
    LogSpans([], {"endpoint": collector.endpoint}).send()
    assert collector.connections == 0
    assert list(LogSpans([], {}).json()) == []


def test_options_are_read_at_once():
    with pytest.raises(BadRequest, match="sinks: otel: queue: expected"):
        LogSpans([], {"queue": 0})


def test_the_plugin_alone_imports_no_sdk():
    code = "import amplifier_sink_otel, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("opentelemetry", "requests", "urllib3", "google"))]
