"""Collectors that are down, slow, refuse, reject or flood: the log misses nothing, and what is dropped is counted."""

import contextlib
import importlib.abc
import json
import logging
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.conftest import descriptors
from tests.otel_sink.conftest import plain

from amplifier_core import KernelError
from amplifier_sink_otel import open_sink


def line(n, **fields):
    """Write the end of a span as the kernel does."""
    event = {
        "id": f"evt_{n:024x}c0ffee00",
        "ts": 1_790_000_000.0 + n,
        "event": "module:invoke",
        "component": "kernel",
        "module": "/mnt/tools/m",
        "status": "ok",
        "duration_ms": 1.5,
        "session_id": "ses_1",
        "request_id": f"{n + 1:032x}",
        "span_id": f"{n + 1:016x}",
        "data": {"op": "x", "args": {}},
        **fields,
    }
    return json.dumps(event).encode() + b"\n"


@pytest.fixture
def sink(options):
    """Make a sink that sends at once."""
    made = []

    def make(**more):
        made.append(open_sink(options(interval=0.01, **more)))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(KernelError):
            each.close()


def nobody():
    """Give the address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def told(caplog):
    return [record.message for record in caplog.records if record.name == "amplifier_sink_otel"]


def test_a_collector_that_is_down_is_told_once_and_what_is_lost_at_close(sink, caplog):
    where = nobody()
    down = sink(endpoint=where)
    for n in range(700):  # more than one message
        down.write(line(n))
    down.close()
    first, last = told(caplog)
    assert first.startswith(f"events may be missing at {where}: ")
    assert "refused" in first
    assert last == f"otel: 700 events are not at {where}"


def test_with_required_the_close_says_it(sink):
    down = sink(endpoint=nobody(), required=True)
    down.write(line(1))
    with pytest.raises(KernelError, match="otel: 1 events are not at"):
        down.close()
    down.close()


def test_a_collector_that_comes_back_gets_everything(sink, collector, caplog):
    statuses = iter([503, 429])
    collector.answer = lambda path, body: (next(statuses, 200), {"retry-after": "0"}, b"")
    one = sink()
    for n in range(600):
        one.write(line(n))
    collector.wait_for(lambda: len(collector.spans) == 600)
    one.close()
    assert told(caplog) == []


@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_message_that_is_refused_is_dropped_and_counted(sink, collector, caplog, status):
    answers = iter([(status, {"location": "/elsewhere"}, b"")])
    collector.answer = lambda path, body: next(answers, (200, {}, b""))
    one = sink()
    one.write(line(1))
    collector.wait_for(lambda: collector.metrics and "amplifier.sink.dropped" in collector.points)
    one.write(line(2))
    one.close()
    assert [span.span_id.hex() for span in collector.spans] == [f"{3:016x}"]
    [(_, point)] = collector.points["amplifier.sink.dropped"]
    assert point.as_int == 1
    assert told(caplog)[-1] == f"otel: 1 events are not at {collector.endpoint}"
    assert "/elsewhere" not in collector.paths


def test_a_viewer_that_takes_no_metrics_is_asked_once(sink, collector, caplog):
    collector.answer = lambda path, body: (200 if path == "/v1/traces" else 405, {}, b"")
    one = sink()
    for n in range(3):
        one.write(line(n))
        collector.wait_for(lambda n=n: len(collector.spans) == n + 1 and "/v1/metrics" in collector.paths)
    one.close()
    assert collector.paths.count("/v1/metrics") == 1
    assert told(caplog) == [f"{collector.endpoint} takes no metrics: HTTP status 405"]


def test_what_a_collector_rejects_is_counted(sink, collector, caplog):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 1
    answer.partial_success.error_message = "too\nold"
    body = {"/v1/traces": answer.SerializeToString(), "/v1/metrics": b"\xff no protobuf"}
    collector.answer = lambda path, _: (200, {}, body[path])
    one = sink()
    one.write(line(1))
    one.close()
    assert told(caplog) == [
        f"events may be missing at {collector.endpoint}: 1 rejected: 'too\\nold'",
        f"otel: 1 events are not at {collector.endpoint}",
    ]


def test_an_answer_that_is_no_otlp_means_nothing(sink, collector, caplog):
    collector.answer = lambda path, body: (200, {}, b"\xff no protobuf")
    one = sink()
    one.write(line(1))
    one.close()
    assert len(collector.spans) == 1
    assert told(caplog) == []


def test_a_flood_is_dropped_and_counted(sink, collector, caplog):
    release = threading.Event()
    collector.answer = lambda path, body: (release.wait(20) and 200, {}, b"")
    one = sink(queue=100)
    one.write(line(0))
    deadline = time.monotonic() + 20
    for n in range(1, 2000):
        one.write(line(n))
    assert time.monotonic() < deadline  # nobody waited
    one.write(b'{"data":"' + b"x" * 1024 * 1024 + b'"}\n')
    release.set()
    one.close()
    lost = 2000 - len(collector.spans) + 1
    assert lost > 1000
    assert told(caplog)[-1] == f"otel: {lost} events are not at {collector.endpoint}"
    [(_, point)] = collector.points["amplifier.sink.dropped"]
    assert point.as_int == lost


def test_lines_that_wait_have_a_bound_in_bytes(sink, collector):
    release = threading.Event()
    collector.answer = lambda path, body: (release.wait(20) and 200, {}, b"")
    one = sink(queue=100_000)
    one.write(line(0))
    large = line(1, data={"op": "x", "args": "x" * 1_000_000})
    for _ in range(100):
        one.write(large)
    assert one._lines._put - one._lines._taken <= 64 * 1024 * 1024
    assert one._lines.dropped > 30
    release.set()


def hanging(server, head=b""):
    """Take a connection, and say nothing, or a byte now and then."""

    def serve():
        with server, contextlib.suppress(OSError):  # the sink has given up
            peer, _ = server.accept()
            with peer:
                peer.recv(1)
                asked.set()
                for byte in head:
                    peer.sendall(bytes([byte]))
                    if stop.wait(0.02):
                        return
                stop.wait(20)

    asked, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    return asked, stop, thread


def test_a_collector_that_says_nothing_is_given_up(sink, caplog):
    server = socket.create_server(("127.0.0.1", 0))
    where = f"http://127.0.0.1:{server.getsockname()[1]}"
    _, stop, thread = hanging(server)
    slow = sink(endpoint=where, timeout=0.2)
    slow.write(line(1))
    slow.close()
    stop.set()
    thread.join()
    assert told(caplog) == [
        f"events may be missing at {where}: timed out",
        f"otel: 1 events are not at {where}",
    ]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1000], ids=["silent", "dripping"])
def test_a_close_ends_a_request_that_hangs(sink, caplog, monkeypatch, head):
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0.5)
    server = socket.create_server(("127.0.0.1", 0))
    where = f"http://127.0.0.1:{server.getsockname()[1]}"
    asked, stop, thread = hanging(server, head)
    slow = sink(endpoint=where, timeout=60)
    slow.write(line(1))
    assert asked.wait(20)
    began = time.monotonic()
    slow.close()
    assert time.monotonic() - began < 10
    assert not slow._thread.is_alive()
    stop.set()
    thread.join()
    assert told(caplog) == [
        f"events may be missing at {where}: no answer before the sink's end",
        f"otel: 1 events are not at {where}",
    ]


def test_a_close_that_has_ended_a_request_begins_no_other(sink, monkeypatch):
    """The metrics would go to the collector after the spans that it did not answer."""
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0.5)
    server = socket.create_server(("127.0.0.1", 0))
    asked, stop, thread = hanging(server)
    slow = sink(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", timeout=60)
    slow.write(line(1))
    assert asked.wait(20)
    exporter = slow._pipeline.exporter
    monkeypatch.setattr(exporter._spans, "shutdown", lambda: time.sleep(0.3))
    slow.close()
    assert not slow._thread.is_alive()
    stop.set()
    thread.join()


def test_a_close_ends_a_request_whose_connection_is_made_meanwhile(sink, monkeypatch, tmp_path):
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0.5)
    monkeypatch.setattr("amplifier_sink_otel._sink._STOP_SECONDS", 10)
    connecting, goes_on = threading.Event(), threading.Event()

    def connect(*given, **named):
        connecting.set()
        goes_on.wait(20)
        return real(*given, **named)

    real = urllib3.util.connection.create_connection
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
    _, stop, thread = hanging(server)
    slow = sink(endpoint=f"https://localhost:{server.getsockname()[1]}", timeout=60, ca=str(file))
    slow.write(line(1))
    assert connecting.wait(20)
    threading.Timer(0.7, goes_on.set).start()
    slow.close()
    assert not slow._thread.is_alive()
    stop.set()
    thread.join()


def test_a_close_does_not_wait_for_the_import_of_the_sdk(sink, collector, caplog, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0)
    monkeypatch.setattr("amplifier_sink_otel._sink._STOP_SECONDS", 0)
    monkeypatch.delitem(sys.modules, "amplifier_sink_otel._pipeline", raising=False)
    release = threading.Event()

    class Slow(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "amplifier_sink_otel._pipeline":
                release.wait(20)

    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    one = sink()
    one.write(line(0))
    one.close()
    release.set()
    one._thread.join(20)
    assert told(caplog) == [f"otel: 1 events are not at {collector.endpoint}"]
    assert collector.connections == 0


def test_a_close_ends_the_making_of_spans_too(sink, collector, caplog, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0)
    one = sink()
    one.write(line(0))
    collector.wait_for(lambda: collector.metrics)
    for n in range(1, 10_000):
        one.write(line(n))
    one.close()
    assert not one._thread.is_alive()
    lost = int(told(caplog)[-1].split()[1])
    assert 10_000 <= lost + len(collector.spans) <= 10_128  # what was on its way may have come
    assert lost > 5000


def test_a_close_ends_the_pause_before_another_try(sink, collector, caplog, monkeypatch):
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0.1)
    collector.answer = lambda path, body: (503, {"retry-after": "50"}, b"")
    one = sink(timeout=60)
    one.write(line(1))
    collector.wait_for(lambda: collector.paths)
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < 10
    assert not one._thread.is_alive()
    assert told(caplog)[-1] == f"otel: 1 events are not at {collector.endpoint}"


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_replaced(sink, collector, caplog):
    one = sink()
    for n in range(3):
        one.write(line(n))
        collector.wait_for(lambda n=n: len(collector.spans) == n + 1)
    assert collector.connections == 1
    collector.hang_up()
    one.write(line(3))
    collector.wait_for(lambda: len(collector.spans) == 4)
    one.close()
    assert collector.connections > 1
    assert told(caplog) == []


def test_a_kept_connection_that_says_nothing_any_more_is_given_up(sink, collector, caplog):
    release = threading.Event()
    one = sink(timeout=0.2)
    one.write(line(0))
    collector.wait_for(lambda: collector.metrics)
    collector.answer = lambda path, body: (release.wait(20) and 200, {}, b"")
    one.write(line(1))
    one.close()
    release.set()
    assert told(caplog) == [
        f"events may be missing at {collector.endpoint}: timed out",
        f"otel: 1 events are not at {collector.endpoint}",
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the test sees in /proc that it connects")
def test_a_close_does_not_wait_for_one_that_connects(sink, caplog, monkeypatch):
    """The queue of the listener is full: a further connection is neither taken nor refused."""
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("amplifier_sink_otel._sink._STOP_SECONDS", 0.2)
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            full = opened.enter_context(socket.socket())
            full.settimeout(0)
            full.connect_ex(server.getsockname())
        where = f"http://127.0.0.1:{server.getsockname()[1]}"
        before = descriptors()
        slow = sink(endpoint=where, timeout=2)
        slow.write(line(1))
        while not [fd for fd, name in descriptors().items() if fd not in before and name.startswith("socket:")]:
            time.sleep(0.01)
        slow.close()
        assert told(caplog)[-1] == f"otel: 1 events are not at {where}"
        slow._thread.join(20)


def test_a_server_that_closes_after_each_answer_is_called_again(sink, collector):
    collector.answer = lambda path, body: (200, {"connection": "close"}, b"")
    one = sink()
    one.write(line(1))
    one.close()
    assert len(collector.spans) == 1
    assert collector.connections == 2  # spans, and metrics


def test_an_answer_beyond_its_bound_costs_the_connection(sink, collector):
    collector.answer = lambda path, body: (200, {}, b"\n\x00" * 200_000)
    one = sink()
    one.write(line(1))
    one.close()
    assert len(collector.spans) == 1
    assert collector.connections == 2


def test_path_headers_and_compression_are_the_embedders(sink, collector):
    one = sink(endpoint=f"{collector.endpoint}/otlp/", headers={"authorization": "Bearer k"}, compression="gzip")
    one.write(line(1))
    one.close()
    assert collector.paths == ["/otlp/v1/traces", "/otlp/v1/metrics"]
    assert len(collector.spans) == 1
    for headers in collector.headers:
        assert headers["authorization"] == "Bearer k"
        assert headers["Content-Type"] == "application/x-protobuf"


def test_over_tls_only_a_certificate_that_is_vouched_for_will_do(sink, collector, tmp_path, caplog):
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    collector.encrypt(authority.issue_cert("localhost"))
    where = f"https://localhost:{collector.server_port}"
    for ca in (str(file), None):
        one = sink(endpoint=where, ca=ca)
        one.write(line(1))
        one.close()
    assert len(collector.spans) == 1
    assert "certificate verify failed" in told(caplog)[0]


@pytest.fixture
def hostile_environment(monkeypatch, tmp_path):
    """Set each variable that could send data elsewhere, or otherwise, and a file with a password for loopback."""
    elsewhere = nobody()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere)
    for signal in ("", "TRACES_", "METRICS_"):
        exporter = f"OTEL_EXPORTER_OTLP_{signal}"
        for name, value in {
            "ENDPOINT": elsewhere,
            "HEADERS": "x-key=other,user-agent=other",
            "COMPRESSION": "gzip",
            "TIMEOUT": "0.000001",
            "CERTIFICATE": "/nowhere.pem",
            "CLIENT_CERTIFICATE": "/nowhere.pem",
            "CLIENT_KEY": "/nowhere.pem",
        }.items():
            monkeypatch.setenv(exporter + name, value)
        monkeypatch.setenv(f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal}CREDENTIAL_PROVIDER", "nobody")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password s3cret")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


@pytest.mark.parametrize("headers", [{}, {"x-own": "1"}])
def test_the_environment_decides_nothing_unasked(sink, collector, hostile_environment, headers):
    one = sink(headers=headers)
    one.write(line(1))
    one.close()
    assert len(collector.spans) == 1
    told = plain(collector.traces[0].resource_spans[0].resource.attributes)
    assert told["service.name"] == "amplifier" and "team" not in told
    expected = {"host", "user-agent", "content-type", "content-length", *headers}
    for got in collector.headers:
        assert {name.lower() for name in got} - {"accept-encoding"} == expected
        assert got["User-Agent"] == "amplifier-sink-otel"
    [(_, point)] = collector.points["amplifier.invoke.duration"]
    assert (point.count, len(point.explicit_bounds)) == (1, 14)


def test_the_sdk_may_be_disabled_which_silences_metrics(sink, collector, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    one = sink()
    one.write(line(1))
    one.close()
    assert len(collector.spans) == 1
    assert collector.paths == ["/v1/traces"]


def test_over_tls_the_environment_vouches_for_nobody(sink, collector, tmp_path, monkeypatch, caplog):
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    collector.encrypt(authority.issue_cert("localhost"))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OTEL_EXPORTER_OTLP_CERTIFICATE"):
        monkeypatch.setenv(name, str(file))
    one = sink(endpoint=f"https://localhost:{collector.server_port}")
    one.write(line(1))
    one.close()
    assert collector.spans == []
    assert "certificate verify failed" in told(caplog)[0]


def test_the_variables_are_used_if_asked_for_and_options_win(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.endpoint}/otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,x-own=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=env,team=t,deployment.environment.name=x")
    for more in ({}, {"service": "shop", "resource": {"deployment.environment.name": "test"}, "compression": "none"}):
        one = open_sink({"environment": True, "headers": {"x-own": "2"}, **more})
        one.write(line(1))
        one.close()
    first, second = (plain(each.resource_spans[0].resource.attributes) for each in collector.traces)
    assert (first["service.name"], first["team"], first["deployment.environment.name"]) == ("env", "t", "x")
    assert (second["service.name"], second["team"], second["deployment.environment.name"]) == ("shop", "t", "test")
    assert {headers["x-own"] for headers in collector.headers} == {"2"}
    assert {headers["x-key"] for headers in collector.headers} == {"a b"}
    assert [headers.get("Content-Encoding") for headers in collector.headers] == ["gzip", "gzip", None, None]
    assert set(collector.paths) == {"/otlp/v1/traces", "/otlp/v1/metrics"}


def test_the_collector_of_the_environment_is_named_so(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nobody())
    one = open_sink({"environment": True})
    one.write(line(1))
    one.close()
    assert told(caplog)[-1] == "otel: 1 events are not at the collector of the environment"


def test_the_sdk_of_others_still_logs(sink, caplog):
    one = sink(endpoint=nobody())
    one.write(line(1))
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter.error("of another thread")
    one.close()
    exporter.error("afterwards")
    assert [each.message for each in caplog.records if each.name == exporter.name] == [
        "of another thread",
        "afterwards",
    ]
    assert exporter.filters == []


def test_a_sink_that_got_nothing_connects_to_nobody(sink, collector, caplog):
    sink().close()
    assert collector.connections == 0
    assert told(caplog) == []


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "amplifier_sink_otel")
