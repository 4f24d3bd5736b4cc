"""A tool that counts words: the same module as wordcount.mjs over HTTP JSON, in Python, for machines without Node.

    python3 wordcount_http.py [PORT]

PORT 0, the default, takes a free port. The line on stdout names the URL. The server ends when its stdin ends, so it
does not outlive the program that started it.
"""

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from wordcount import DESCRIPTION, Refused, count  # the file beside this one

STATUS = {"bad_request": HTTPStatus.BAD_REQUEST, "unsupported_op": HTTPStatus.NOT_FOUND}


def answer(path: str, body: bytes) -> object:
    """Return the reply body of one request."""
    try:
        params: Any = json.loads(body or b"{}")
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise Refused("bad_request", "expected a JSON object")
    if path == "/health":
        return {"status": "ok"}
    if path == "/describe":
        return {**DESCRIPTION, "name": "wordcount-http"}
    if path != "/invoke":
        raise Refused("unsupported_op", f"there is no {path}")
    if params.get("op") != "count":
        raise Refused("unsupported_op", f"wordcount-http does not know {params.get('op')!r}")
    return {"ok": True, "result": count(params.get("args"))}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"  # keep connections open
    wbufsize = -1  # one send for a response: sent apart, the body waits 40 ms for a delayed ACK
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # the name is http.server's
        """Answer one request."""
        status = HTTPStatus.OK
        try:
            reply = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        except Refused as refused:
            code, message = refused.args
            status, reply = STATUS[code], {"ok": False, "error": {"code": code, "message": message}}
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if request_id := self.headers.get("X-Request-Id"):  # repeated, it lets the kernel keep the connection
            self.send_header("X-Request-Id", request_id)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no requests."""


class Server(ThreadingHTTPServer):
    """Accepts many connections at once: Python's queue of five is too short for a kernel."""

    request_queue_size = 128


def main() -> None:
    """Serve until stdin ends."""
    server = Server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
