"""A module with one flaw, which its argument names, over STDIO; with `none` it conforms. Over HTTP: flawed_http.py.

It imports no more than it needs, since a hundred of it are started. A thread of its own answers each request.
`count`, `stream`, `call` and `fail` answer soon, `slow` may be cancelled.
"""

import contextlib
import json
import os
import sys
import threading
import time

FLAW = sys.argv[1] if len(sys.argv) > 1 else "none"
LARGE = 300 * 1024  # bytes, more than limits.message_bytes
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
WORDS = {"type": "object", "required": ["words"], "properties": {"words": {"type": "integer"}}}
INPUTS = {"count": TEXT, "slow": TEXT, "stream": TEXT, "call": TEXT, "fail": {}, "on_event": {}}
OUTPUTS = {"count": WORDS, "slow": WORDS, "stream": WORDS, "call": {}, "fail": {}, "on_event": {}}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
TWO = {"ok": True, "result": {"words": 2}}
EVENT = {"event": "word:count", "data": {}}


def failure(code, message="no", **more):
    return {"ok": False, "error": {"code": code, "message": message, **more}}


def pending(name, args):
    return {"pending": {"syscalls": [{"name": name, "args": args}], "state": {"step": 1}}}


DESCRIPTIONS: dict[str, dict] = {  # members of the description
    "describe-name": {"name": "other"},
    "describe-kind": {"kind": "tool"},
    "describe-version": {"version": "1.2.1"},
    "describe-latest": {"version": "latest"},
    "describe-capability": {"capabilities": ["sys:mounts", "env:HOME"]},
    "describe-nonsense": {"inputs": {**INPUTS, "count": {"type": "nonsense"}}},
    "describe-draft-7": {"outputs": {**OUTPUTS, "call": {**DRAFT_7, "type": "nonsense"}}},
    "dialects": {"outputs": {**OUTPUTS, "count": {**DRAFT_7, **WORDS}, "fail": {"$schema": "x:other", "type": 5}}},
    "describe-no-op": {"outputs": {op: schema for op, schema in OUTPUTS.items() if op != "count"}},
    "describe-text": {"inputs": "none"},
    "describe-protocol": {"protocol": 2},
    "describe-many": {"outputs": {**OUTPUTS, **{f"op{n}": True for n in range(1100)}}},
    "outputs-elsewhere": {"outputs": {**OUTPUTS, "count": {"$ref": "https://elsewhere.example/words"}}},
    "outputs-circle": {"outputs": {**OUTPUTS, "count": {"$ref": "#"}}},
    "inputs-narrow": {"inputs": {**INPUTS, "count": {"required": ["path"]}}},
}
REPLIES: dict[str, tuple[str, dict]] = {  # what an op answers
    "result-outputs": ("count", {"ok": True, "result": {"words": "two"}}),
    "reply-shapeless": ("count", {"ok": True, "words": 2}),
    "reply-both": ("count", {**TWO, "error": {"code": "x", "message": "y"}}),
    "reply-ok-text": ("count", {"ok": "yes", "result": {"words": 2}}),
    "chunk-and-reply": ("stream", {"chunk": 1, **TWO}),
    "error-no-message": ("fail", {"ok": False, "error": {"code": "out_of_ink"}}),
    "error-text": ("fail", {"ok": False, "error": "no"}),
    "error-code": ("fail", failure("out of ink!")),
    "error-details": ("fail", failure("out_of_ink", details="cyan")),
    "error-kernels-code": ("fail", failure("oom")),
    "error-unexpected": ("count", failure("internal", "KeyError: 'text'")),
    "error-expected": ("fail", {"ok": True, "result": {}}),
    "event-kernels-name": ("count", {**TWO, "events": [{"event": "mount:add", "data": {}}]}),
    "event-no-name": ("count", {**TWO, "events": [{"event": "wrote", "data": {}}]}),
    "event-text": ("count", {**TWO, "events": ["wrote"]}),
    "event-no-data": ("count", {**TWO, "events": [{"event": "word:count"}]}),
    "events-many": ("count", {**TWO, "events": [EVENT] * 1001}),
    "pending-unknown": ("call", pending("mount.all", {})),
    "pending-ungranted": ("call", pending("emit", {"event": "word:count", "data": {}})),
    "pending-malformed": ("call", pending("mounts", [])),
    "hook-maybe": ("on_event", {"ok": True, "result": {"decision": "maybe"}}),
    "pending-empty": ("call", {"pending": {"syscalls": []}}),
    "args-unchecked": ("count", TWO),
    "example-silent": ("count", {}),
}
UNKNOWN_OP = {
    "unknown-op-ok": {"ok": True, "result": None},
    "unknown-op-internal": failure("internal"),
    "unknown-op-silent": {},
}
CANCELLED: dict[str, threading.Event] = {}  # by the ids of requests


def answer(method, params, chunk, cancelled):
    """Give the reply to a request; an empty one is not sent."""
    if FLAW == "unknown-member" and "nested" in params.get("x-unknown", ()):
        return failure("bad_request", "unknown member")
    if method == "health":
        return {"ok": True, "result": {"status": "ill" if FLAW == "health-ill" else "ok"}}
    if method == "describe":
        told = {"name": "flawed", "version": "1.2.0", "kind": "orchestrator", "capabilities": ["sys:mounts"]}
        if FLAW in ("describe-silent", "describe-number"):
            return {"ok": True, "result": 5} if FLAW == "describe-number" else {}
        return {"ok": True, "result": {**told, "inputs": INPUTS, "outputs": OUTPUTS, **DESCRIPTIONS.get(FLAW, {})}}
    return invoke(params["op"], params["args"], params.get("resume"), chunk, cancelled)


def invoke(op, args, resume, chunk, cancelled):
    replaced = REPLIES.get(FLAW, ("", {}))
    if op not in INPUTS:
        reply = UNKNOWN_OP.get(FLAW, failure("unsupported_op"))
    elif op == "on_event" and FLAW != "hook-maybe":
        reply = {"ok": True, "result": {"decision": "abstain"}}
    elif (
        op not in ("fail", "on_event")
        and not isinstance(args.get("text"), str)
        and (op, FLAW) != ("count", "args-unchecked")
    ):
        reply = failure("internal" if FLAW == "args-internal" else "bad_request")
    elif replaced[0] == op and (op != "call" or not resume):
        reply = replaced[1]
    elif op == "fail":
        reply = failure("out_of_ink", "buy some")
    elif op == "call":
        odd = {"resume-silent": {}, "resume-fails": {"words": 1}}
        reply = odd.get(FLAW, {"ok": True, "result": resume["results"]}) if resume else pending("mounts", {})
    elif op == "slow" and cancelled.wait(0.2):
        time.sleep(30 if FLAW == "cancel-ignored" else 0)
        reply = failure("cancelled")
    else:
        if op == "stream" and not cancelled.is_set():
            chunk({"words": 1})
        reply = {"ok": True, "result": {"words": len(args["text"].split())}}
    return reply


# STDIO. What is written in place of the line that answers `count`, or `stream`:


def line(message):
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


WRITTEN = {
    "noise-text": lambda message: ["counting…\n".encode(), line(message)],
    "noise-json": lambda message: [b'{"level": "info", "message": "counting"}\n', line(message)],
    "noise-number": lambda message: [b"42\n", line(message)],
    "noise-request": lambda message: [b'{"id": "m1", "method": "invoke", "params": {}}\n', line(message)],
    "wrong-id": lambda message: [line({**message, "id": "x1"})],
    "no-id": lambda message: [line({name: part for name, part in message.items() if name != "id"})],
    "null-id": lambda message: [line({**message, "id": None})],
    "twice": lambda message: [line(message), line(message)],
    "pretty": lambda message: [json.dumps(message, indent=2).encode() + b"\n"],
    "two-on-a-line": lambda message: [line(message)[:-1], line({**message, "id": "r0"})],
    "bom": lambda message: [b"\xef\xbb\xbf", line(message)],
    "nan": lambda message: [line({**message, "result": {"words": float("nan")}})],
    "not-utf-8": lambda message: [line({**message, "more": "ÿ"}).decode().encode("latin-1")],
    "cut": lambda message: [line(message)[:-3], b"\n"],
    "python-repr": lambda message: [f"{message}\n".encode()],
    "floods": lambda _: [b"\n" * 100_001],
    "list-id": lambda message: [line({**message, "id": ["x"]})],
    "nearly-too-large": lambda message: [line({**message, "more": "x" * 265_000})],
    "too-large": lambda message: [line({**message, "more": "x" * LARGE})],
}
LOCK = threading.Lock()
IN_FLIGHT: list[str] = []


def write(*texts):
    with LOCK:
        for text in texts:
            sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def handle(request):
    request_id, op = request["id"], request.get("params", {}).get("op")
    IN_FLIGHT.append(request_id)
    crowd = len(IN_FLIGHT)
    time.sleep((0.2 if FLAW == "crossed" and crowd > 1 else 0.02) if op else 0)
    cancelled = CANCELLED.setdefault(request_id, threading.Event())
    reply = answer(
        request["method"],
        request.get("params", {}),
        lambda chunk: write(line({"id": request_id, "chunk": chunk})),
        cancelled,
    )
    IN_FLIGHT.remove(request_id)
    if FLAW == "crossed" and crowd > 8:
        request_id = IN_FLIGHT[-1] if IN_FLIGHT else request_id
    if reply:
        write_reply(op, {"id": request_id, **reply})


def write_reply(op, message):
    if FLAW == "wrong-id-health":
        message["id"] = "x1"
    if FLAW == "number-id":
        message["id"] = int(message["id"][1:])
    write(*(WRITTEN[FLAW](message) if FLAW in WRITTEN and op == "count" else [line(message)]))
    if FLAW == "twice-later" and op == "count":
        threading.Timer(0.1, write, [line(message)]).start()
    if FLAW == "chunk-after" and op == "stream":
        write(line({"id": message["id"], "chunk": 2}))


def on_cancel(request_id):
    if FLAW == "cancel-dies":
        die("KeyError: 'id'")
    if FLAW == "cancel-answered":
        write(line({"id": None, "ok": True, "result": {}}))
    if FLAW == "cancel-fails":
        write(line({"id": request_id, **failure("cancelled")}))
    CANCELLED.setdefault(request_id, threading.Event()).set()


def die(reason):
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(3)


def requests():
    """Read the requests, as far as the flaw lets it."""
    for text in sys.stdin.buffer:
        for part in text.decode().splitlines() if FLAW == "separators" else [text]:
            yield json.loads(part[:65536] if FLAW == "large-request" else part)


def stay_once():
    """Tell whether this is the first process that ends here."""
    with contextlib.suppress(FileExistsError):
        os.mkdir("stayed")  # noqa: PTH102 - pathlib is slow to import
        return True
    return False


def serve_lines():
    if FLAW == "banner":
        write(b"flawed 1.2.0 is ready\n")
    for request in requests():
        op = request.get("params", {}).get("op")
        if FLAW == "closes-stdin":
            os.close(0)
            handle(request)
            time.sleep(60)
        if FLAW in ("exits", "exits-on-op") and (op == "count" or FLAW == "exits"):
            die("Traceback: out of luck")
        if "id" not in request:
            on_cancel(request["params"]["id"])
        elif FLAW == "closes-stdout" and op == "count":
            os.close(1)
        elif FLAW != "health-dead" and not (FLAW == "no-params" and "params" not in request):
            threading.Thread(target=handle, args=(request,), daemon=True).start()
    if FLAW == "stays" or (FLAW == "stays-once" and stay_once()):
        time.sleep(60)


if __name__ == "__main__":
    serve_lines()
