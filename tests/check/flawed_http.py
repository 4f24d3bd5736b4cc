"""The module of flawed.py over HTTP. It prints its port, and ends with its stdin."""

import json
import os
import select
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flawed import FLAW, LARGE, answer, line, write


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        params = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, chunks = self.path.strip("/"), []
        if (
            FLAW == "http-cancel-dies"
            and params.get("op") == "slow"
            and select.select([self.connection], [], [], 0.3)[0]
        ):
            os._exit(1)  # a client that has gone away leaves an end to read
        reply = answer(method, params, chunks.append, threading.Event())
        if FLAW == "health-dead" or not reply:
            self.rfile.read(1)  # until the client goes away
        elif FLAW == "http-health-404" and method == "health":
            self.answer(404, b"not here", "text/plain")
        elif FLAW == "http-health-stream" and method == "health":
            self.answer(200, line(reply["result"]), "application/x-ndjson")
        elif chunks:
            self.stream([{"chunk": chunk} for chunk in chunks], reply)
        elif params.get("op") == "count":
            self.count(json.dumps(reply).encode())
        else:
            bare = method != "invoke" and reply["ok"] and FLAW != "http-wrapped"
            self.answer(200, json.dumps(reply["result"] if bare else reply).encode())

    def count(self, body):
        answers: dict[str, tuple] = {
            "http-html": (200, b"<html>\nhello\n</html>", "text/html"),
            "http-two": (200, body + b"\n" + body),
            "http-bom": (200, b"\xef\xbb\xbf" + body),
            "http-too-large": (200, body + b" " * LARGE),
            "http-breaks-off": (200, body, "application/json", len(body) + 5),
            "http-plain": (200, body, "text/plain"),
            "http-status": (500, body),
            "http-number": (200, b"42"),
            "http-elsewhere": (307, b"", "text/plain"),
        }
        self.close_connection = FLAW == "http-breaks-off"
        self.answer(*answers.get(FLAW, (200, body)))

    def stream(self, chunks, reply):
        lines = {
            "http-stream-unended": chunks,
            "http-after-reply": [*chunks, reply, *chunks],
            "http-stream-mixed": [*chunks, {**reply, "chunk": 1}],
            "http-stream-numbers": [*chunks, 42],
        }.get(FLAW, [*chunks, reply])
        body = b"".join(map(line, lines))
        if FLAW in ("http-unended-line", "http-after-unended"):
            body = body[:-1] if FLAW == "http-unended-line" else body + b"more"
        if FLAW == "http-stream-garbage":
            body = b"counting...\n" + body
        kinds = {"http-stream-as-json": "application/json", "http-stream-as-text": "text/plain"}
        self.answer(200, body, kinds.get(FLAW, "application/x-ndjson"))

    def answer(self, status, body, kind="application/json", length=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length or len(body)))
        if FLAW == "http-request-id":
            self.send_header("x-request-id", "7")
        if status == 307:
            self.send_header("location", self.path)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # who comes when five are waiting would be let in a second later


def serve_http():
    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write(b"%d\n" % server.server_address[1])
    sys.stdin.read()


if __name__ == "__main__":
    serve_http()
