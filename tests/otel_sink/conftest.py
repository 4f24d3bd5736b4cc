"""A collector of OpenTelemetry on loopback, which decodes what it gets, and answers as a test says."""

import contextlib
import gzip
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def plain(attributes):
    """Give attributes as a dict."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class Collector(ThreadingHTTPServer):
    """Keeps requests. ``answer(path, body)`` gives status, headers and body of each answer."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.traces, self.metrics, self.headers, self.paths = [], [], [], []
        self.connections = 0
        self.open = []
        self.answer = lambda path, body: (200, {}, b"")
        self.arrived = threading.Condition()

    def get_request(self):
        self.connections += 1
        accepted = super().get_request()
        self.open.append(accepted[0])
        return accepted

    def hang_up(self):
        """End every connection."""
        for each in self.open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def encrypt(self, certificate):
        """Speak TLS from now on."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request, address):
        """A client that went away is no error of the test's."""

    def take(self, path, headers, body):
        status, extra, answer = self.answer(path, body)
        with self.arrived:
            self.headers.append(dict(headers))
            self.paths.append(path)
            if status == 200:
                kept = self.traces if path.endswith("/v1/traces") else self.metrics
                kind = ExportTraceServiceRequest if kept is self.traces else ExportMetricsServiceRequest
                kept.append(kind.FromString(body))
            self.arrived.notify_all()
        return status, extra, answer

    def wait_for(self, condition, seconds=20):
        with self.arrived:
            assert self.arrived.wait_for(condition, seconds)

    @property
    def scopes(self):
        return [scope for request in self.traces for of in request.resource_spans for scope in of.scope_spans]

    @property
    def spans(self):
        return [span for scope in self.scopes for span in scope.spans]

    def span(self, name):
        [found] = [span for span in self.spans if span.name == name]
        return found

    def tree(self, span=None):
        """Give spans as nested names: those below one, or the roots."""
        ids = {each.span_id for each in self.spans}
        parents = {span.span_id} if span else {each.parent_span_id for each in self.spans} - ids
        below = [each for each in self.spans if each.parent_span_id in parents]
        return {each.name: self.tree(each) for each in sorted(below, key=lambda each: each.start_time_unix_nano)}

    @property
    def points(self):
        """Give the newest points of each metric, with their labels."""
        [of] = self.metrics[-1].resource_metrics
        found = {}
        for metric in of.scope_metrics[0].metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            found[metric.name] = [(plain(point.attributes), point) for point in data.data_points]
        return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        server: Any = self.server
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        status, headers, answer = server.take(self.path, self.headers, body)
        self.send_response(status)
        for name, value in ({"content-length": str(len(answer))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.hang_up()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Let a sink have more time to close than five seconds: the machine may be busy."""
    monkeypatch.setattr("amplifier_sink_otel._sink._CLOSE_SECONDS", 60)


@pytest.fixture
def options(collector):
    """Give the options of a sink for the collector of the test."""
    return lambda **more: {"endpoint": collector.endpoint, **more}
