"""The module of echo.py over HTTP.

echo_http.py [--name NAME] [--kind KIND] [--version VERSION] [--capabilities JSON]

Prints `listening on http://127.0.0.1:PORT`, and ends with its stdin.
"""

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from echo import Failed, description, perform

DESCRIPTION = description()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one send a response
    disable_nagle_algorithm = True

    def do_POST(self):
        params = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/health":
            self._send(HTTPStatus.OK, {"status": "ok"})
        elif self.path == "/describe":
            self._send(HTTPStatus.OK, DESCRIPTION)
        elif self.path != "/invoke":
            self._send(HTTPStatus.NOT_FOUND, None)
        else:
            try:
                self._send(HTTPStatus.OK, {"ok": True, "result": perform(params["op"], params["args"], Event())})
            except Failed as failed:
                self._send(HTTPStatus.OK, {"ok": False, "error": failed.error})

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Request-Id", self.headers["X-Request-Id"])
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.buffer.read()
