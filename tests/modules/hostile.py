"""A module that behaves, but for one message: in one place of it, it puts more than anybody asked for.

hostile.py TRANSPORT METHOD TEMPLATE TIMES FILLER SIZE: TRANSPORT is stdio, hook, http, mcp, mcp-http or nats:PORT, with
the port of a server of NATS. It answers
METHOD with TEMPLATE, in which @ stands for SIZE bytes of FILLER and # for the id of the request. The arguments of an
invocation choose their own. It sends this TIMES times and then, if TEMPLATE ends in a line feed, the usual answer. A
server, and a worker of NATS, prints its port. Only the standard library is here.
"""

import contextlib
import json
import os
import socket
import socketserver
import sys
import threading

FILLERS = {
    "text": lambda size: b'"' + b"x" * size + b'"',
    "bare": lambda size: b"x" * size,
    "word": lambda size: b'"sys:emit:' + b"*" * size + b'a"',
    "path": lambda size: b'"fs:read:/' + b"../" * (size // 3) + b'"',
    "wide": lambda size: b'"' + b"x" * size + "\N{GRINNING FACE}".encode() + b'"',
    "escapes": lambda size: b'"' + b"\\\\" * (size // 2) + b'"',
    "controls": lambda size: b'"' + "\u2028".encode() * (size // 3) + b'"',
    "digits": lambda size: b"9" * size,
    "deep": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "lists": lambda size: b"[" + b"[]," * (size // 3) + b"0]",
    "texts": lambda size: b"[" + b'"ab",' * (size // 5) + b'"a"]',
    "objects": lambda size: b"[" + b'{"a":1},' * (size // 8) + b"0]",
    "members": lambda size: b"{" + b",".join(b'"%d":{}' % n for n in range(size // 12)) + b"}",
    "lines": lambda size: b"{}\n" * (size // 3),
    "blank": lambda size: b"\n" * size,
    "headers": lambda size: b"".join(b"x-%d: 1\r\n" % n for n in range(size // 10)),
}
DESCRIPTION = {"name": "m", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
TOOL = {"name": "go", "inputSchema": {"type": "object"}}
MCP = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "m", "version": "1.0.0"},
    },
    "ping": {},
    "tools/list": {"tools": [TOOL]},
    "tools/call": {"content": [{"type": "text", "text": "fine"}]},
}

transport, METHOD, TEMPLATE, TIMES, FILLER, SIZE = sys.argv[1:]
transport, _, PORT = transport.partition(":")


def told(request_id, params):
    """Give the message that METHOD is answered with."""
    chosen = params.get("args") or params.get("arguments") or {}
    before, at, after = TEMPLATE.replace("#", request_id).partition("@")
    filler = FILLERS[chosen.get("filler", FILLER)](chosen.get("size", int(SIZE))) if at else b""
    return b"".join((before.encode(), filler, after.encode()))


def is_meant(method, params):
    """Tell whether a request gets TEMPLATE. Once its system calls have been made, it gets the usual answer."""
    return method == METHOD and not params.get("resume")


def usual(method):
    """Give the result that a module should answer with."""
    return {"health": {"status": "ok"}, "describe": DESCRIPTION}.get(method, {"ok": True, "result": "fine"})


def out(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def answer_line(request, good):
    """Answer one line of a pipe."""
    if is_meant(request["method"], request.get("params", {})):
        message = told(str(request["id"]), request.get("params", {}))
        for _ in range(int(TIMES)):
            out(message)
            if not message.endswith(b"\n"):
                out(b"\n")
        if not TEMPLATE.endswith("\n"):
            return
    out(json.dumps(good).encode() + b"\n")


def stdio():
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:
            method, good = request["method"], {"id": request["id"], "ok": True}
            answer_line(request, {**good, "result": usual(method)} if method != "invoke" else {**good, **usual(method)})


def rpc(request):
    if request["method"] in MCP:
        return {"jsonrpc": "2.0", "id": request["id"], "result": MCP[request["method"]]}
    return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no such method"}}


def mcp():
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request and "method" in request:
            answer_line(request, rpc(request))


class Handler(socketserver.StreamRequestHandler):
    """Answers the requests of one connection."""

    def handle(self):
        with contextlib.suppress(OSError):  # the client has had enough
            while head := self.head():
                length = [line.split(b":")[1] for line in head if line.lower().startswith(b"content-length:")]
                body = json.loads(self.rfile.read(int(length[0]))) if length else {}
                path = head[0].split()[1].decode()
                self.answer(path.rpartition("/")[2] if transport == "http" else body.get("method", "GET"), body)

    def head(self):
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        return lines

    def answer(self, method, body):
        if is_meant(method, body.get("params", body)):
            message = told(json.dumps(body.get("id")), body.get("params", body))
            if not TEMPLATE.startswith("HTTP/"):
                kind = b"application/x-ndjson" if TEMPLATE.endswith("\n") else b"application/json"
                length = len(message) * int(TIMES)
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, length))
            for _ in range(int(TIMES)):
                self.wfile.write(message)
        elif transport == "http":
            self.send(b"200 OK", usual(method))
        elif method == "GET":
            self.send(b"405 Method Not Allowed", {})
        elif "id" in body:
            self.send(b"200 OK", rpc(body))
        else:
            self.send(b"202 Accepted", {})

    def send(self, status, value):
        text = json.dumps(value).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.wfile.write(head % (status, len(text)) + text)


def serve():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        print(server.server_address[1], flush=True)
        server.serve_forever()


CONTROL = b"_INBOX.hostile.1"  # one subject for all requests, which come one after the other


def nats():
    """Serve the subject m, as a worker."""
    with socket.create_connection(("127.0.0.1", int(PORT))) as wire, wire.makefile("rb") as lines:
        wire.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nSUB m.* q 1\r\nSUB %b 2\r\nPING\r\n' % CONTROL)
        body, inbox, read = b"", b"", 0
        for line in lines:
            word, *words = line.split()
            if word == b"PONG":
                print(PORT, flush=True)
            elif word == b"PING":
                wire.sendall(b"PONG\r\n")
            elif word in (b"MSG", b"HMSG"):
                head, data = cut(lines.read(int(words[-1]) + 2)[:-2], int(words[-2]) if word == b"HMSG" else 0)
                if words[0] != CONTROL:
                    method, inbox, body, read = words[0].rpartition(b".")[2].decode(), words[2], b"", 0
                if b"cancel" in head:
                    continue
                body, read = body + data, read + len(data) + 256
                if b"part" in head:
                    publish(wire, inbox, b"NATS/1.0\r\nAmplifier: read %d\r\n\r\n" % read, b"")
                if b"part" not in head or len(body) == int(head.split()[-1]):
                    answer_nats(wire, method, json.loads(body), inbox)


def cut(text, at):
    return text[:at], text[at:]


def answer_nats(wire, method, params, inbox):
    """Answer one request. A template may begin with headers."""
    if is_meant(method, params):
        made = []
        making = threading.Thread(target=lambda: made.append(told("", params)))
        making.start()
        while making.is_alive():  # some take longer than a worker may be silent
            publish(wire, inbox, b"NATS/1.0\r\nAmplifier: alive\r\n\r\n", b"")
            making.join(1)
        head, _, data = made[0].rpartition(b"\r\n\r\n")
        for _ in range(int(TIMES)):
            publish(wire, inbox, head + b"\r\n\r\n" if head else b"", data)
        if not TEMPLATE.endswith("\n"):
            return
    good = usual(method) if method == "invoke" else {"ok": True, "result": usual(method)}
    publish(wire, inbox, b"", json.dumps(good).encode())


def publish(wire, inbox, head, data):
    sizes = b"%d %d" % (len(head), len(head) + len(data)) if head else b"%d" % len(data)
    wire.sendall(b"%b %b %b %b\r\n" % (b"HPUB" if head else b"PUB", inbox, CONTROL, sizes))
    wire.sendall(head + data + b"\r\n")


if __name__ == "__main__":
    {"stdio": stdio, "hook": stdio, "mcp": mcp, "nats": nats}.get(transport, serve)()
