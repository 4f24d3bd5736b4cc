"""The module of echo_http.py, each of whose requests is a span below that of its header: traced_http.py ENDPOINT."""

import sys
from threading import Thread

from opentelemetry import propagate
from opentelemetry.trace import SpanKind
from traced import tracer

TRACER = tracer("echo", sys.argv.pop())

from echo_http import Handler, Server  # noqa: E402 - it reads the arguments


class Traced(Handler):
    def do_POST(self):  # noqa: N802 - the name is http.server's
        parent = propagate.extract(self.headers)
        with TRACER.start_as_current_span(f"POST {self.path}", parent, SpanKind.SERVER):
            super().do_POST()


server = Server(("127.0.0.1", 0), Traced)
Thread(target=server.serve_forever, daemon=True).start()
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
sys.stdin.buffer.read()
