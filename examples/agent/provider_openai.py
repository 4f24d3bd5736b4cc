"""A provider: an OpenAI-compatible endpoint as a module over HTTP JSON, in plain Python.

    OPENAI_BASE_URL=https://…/v1 OPENAI_MODEL=… [OPENAI_API_KEY=…] python3 provider_openai.py [PORT]

PORT 0, the default, takes a free port. The line on stdout names the URL. The server ends when its stdin ends, so it
does not outlive the program that started it.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import MSG_PEEK, SHUT_RDWR, socket
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

MESSAGES = {"messages": {"type": "array", "items": {"type": "object"}}}
TOOLS = {"tools": {"type": "array", "items": {"type": "object"}}}
ENVIRONMENT = ["env:OPENAI_API_KEY", "env:OPENAI_BASE_URL", "env:OPENAI_MODEL", "env:SSL_CERT_FILE"]
DESCRIPTION = {
    "name": "openai",
    "version": "0.1.0",
    "kind": "provider",
    "capabilities": [*ENVIRONMENT, "net:connect:*", "net:listen:*"],
    "inputs": {"complete": {"type": "object", "required": ["messages"], "properties": {**MESSAGES, **TOOLS}}},
    "outputs": {"complete": {"type": "object", "required": ["message"], "properties": {"message": {"type": "object"}}}},
}
CODES = {  # much as for the status of a module (section 4 of the protocol)
    **dict.fromkeys((400, 413, 422), "bad_request"),
    **dict.fromkeys((401, 403), "forbidden"),
    **dict.fromkeys((404, 405, 501), "unsupported_op"),
    **dict.fromkeys((408, 504), "timeout"),
    **dict.fromkeys((429, 502, 503), "unavailable"),  # "unreachable" is the kernel's own word
}
OK = 200
JSON_TYPE, NDJSON_TYPE = "application/json", "application/x-ndjson"


def failure(code: str, message: str, **details: object) -> dict[str, Any]:
    """Return the reply that says what went wrong."""
    return {"ok": False, "error": {"code": code, "message": message, "details": details}}


def complete(args: dict[str, Any], seconds: float, kernel: socket) -> Iterator[dict[str, Any]]:
    """Yield a chunk for each piece of text, then the reply."""
    base, model = os.environ.get("OPENAI_BASE_URL", ""), os.environ.get("OPENAI_MODEL", "")
    url = urlsplit(f"{base.rstrip('/')}/chat/completions")
    if url.scheme not in ("http", "https") or not url.hostname or not model:
        yield failure("bad_request", "OPENAI_BASE_URL and OPENAI_MODEL: expected an http(s) URL and a name")
        return
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    body = {"model": model, "messages": args["messages"], "stream": True}
    if args.get("tools"):
        body["tools"] = args["tools"]
    headers = {"Content-Type": JSON_TYPE, "Accept": "text/event-stream"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    try:
        with closing(connect(url.hostname, url.port, timeout=seconds)) as endpoint:
            endpoint.connect()
            hang_up_together(kernel, endpoint.sock)
            endpoint.request("POST", url.path, json.dumps(body), headers)
            with endpoint.getresponse() as response:
                yield from answers(response, url.geturl())
    except TimeoutError:
        yield failure("timeout", f"{url.geturl()}: nothing came within {seconds:g} s")
    except (OSError, HTTPException) as error:
        yield failure("unavailable", f"{url.geturl()}: {error!r}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # not JSON, or of another shape
        yield failure("internal", f"{url.geturl()} broke the interface of chat completions: {error!r}")


def hang_up_together(kernel: socket, endpoint: socket) -> None:
    """Close the connection to the endpoint when the kernel closes its own, which is its cancel; also during silence."""

    def wait() -> None:
        with suppress(OSError):  # the request has ended already
            if not kernel.recv(1, MSG_PEEK):  # if it is not empty, it is the next request
                endpoint.shutdown(SHUT_RDWR)

    Thread(target=wait, daemon=True).start()


def answers(response: HTTPResponse, url: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks and the reply for one response of the endpoint."""
    if response.status != OK:
        text = response.read(2000).decode(errors="replace")
        details = {"http_status": response.status, "retry_after": response.headers.get("Retry-After")}
        code = CODES.get(response.status, "internal")
        yield failure(code, f"{url} answered HTTP {response.status}: {said(text)}", **details)
    elif response.headers.get_content_type() == JSON_TYPE:  # this endpoint does not stream
        yield {"ok": True, "result": {"message": json.load(response)["choices"][0]["message"]}}
    else:
        yield from streamed(response)


def said(text: str) -> str:
    """Return the message of an endpoint's error, or the beginning of the text that it sent."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return " ".join(text.split())[:200] or "nothing"


def streamed(lines: HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield a chunk for each piece of text in the server-sent events, then the whole message."""
    text, calls, reason = "", dict[Any, dict[str, Any]](), None
    for line in lines:
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            yield failure("internal", f"the endpoint broke off: {said(data.decode())}")
            return
        for choice in event["choices"]:
            reason = choice.get("finish_reason") or reason
            if piece := choice["delta"].get("content"):
                text += piece
                yield {"chunk": {"text": piece}}
            for part in choice["delta"].get("tool_calls") or ():
                add(calls, part)
    if reason is None:
        yield failure("unavailable", "the endpoint went away before its answer was complete")
        return
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = list(calls.values())
    yield {"ok": True, "result": {"message": message}}


def add(calls: dict[Any, dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a piece to a tool call. The first piece has the id and the name, the others have parts of the arguments."""
    empty = {"id": part.get("id"), "type": "function", "function": {"name": "", "arguments": ""}}
    function = calls.setdefault(part.get("index", part.get("id")), empty)["function"]
    for field in function:
        function[field] += part.get("function", {}).get(field) or ""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"  # keep connections open
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # the name is http.server's
        """Answer one request."""
        params = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        match self.path, params:
            case "/health", _:
                self.send({"status": "ok"})
            case "/describe", _:
                self.send(DESCRIPTION)
            case "/invoke", {"op": "complete", "args": {"messages": list()} as args}:
                self.stream(complete(args, params.get("deadline_ms", 60_000) / 1000, self.connection))
            case "/invoke", {"op": "complete"}:
                self.send(failure("bad_request", "args.messages: expected a list"))
            case _:
                self.send(failure("unsupported_op", "openai knows complete alone"))

    def send(self, reply: dict[str, Any]) -> None:
        """Send a reply at once."""
        body = json.dumps(reply).encode()
        self.begin(JSON_TYPE, "Content-Length", str(len(body)))
        self.wfile.write(body)

    def stream(self, replies: Iterator[dict[str, Any]]) -> None:
        """Send each chunk as it comes, then the reply, one on a line. A closed connection is the kernel's cancel."""
        with suppress(ConnectionError):
            self.begin(NDJSON_TYPE, "Transfer-Encoding", "chunked")
            for reply in replies:
                line = json.dumps(reply).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")

    def begin(self, content_type: str, header: str, value: str) -> None:
        """Send status and headers."""
        self.send_response(OK)
        self.send_header("Content-Type", content_type)
        self.send_header(header, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log no requests."""


def main() -> None:
    """Serve until stdin ends."""
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
