"""caller.py as an HTTP server: the same answers, a thread for each connection, holding nothing between turns.

With --one-connection it has no threads: it takes the next connection when the last one has ended.
Prints `listening on http://127.0.0.1:PORT`; ends when its stdin closes.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from threading import Thread

from caller import answer

ONE = "--one-connection"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        params = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method = self.path.rpartition("/")[2]
        reply = answer(method, params)
        body = json.dumps(reply if method == "invoke" else reply["result"]).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-request-id", self.headers["x-request-id"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    kind = HTTPServer if ONE in sys.argv else ThreadingHTTPServer
    sys.argv[1:] = [word for word in sys.argv[1:] if word != ONE]
    server = kind(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
