"""A module that streams: chunks before its reply, over STDIO.

streamer.py [--name NAME] [--capabilities JSON]

count  {"to", "size"?, "pause"?}    chunks {"n": 1}, {"n": 2} …, each padded to size bytes; the result is {"count": to}
fail   {"to"}                       chunks, then an error
endless {"pause"?}                  chunks until it is cancelled
relay  {"path", "op", "args", "stream"}   invokes that and, with stream, passes its chunks on
"""

import argparse
import json
import os
import sys
from threading import Event, Lock, Thread

running = {}
stdout = Lock()


def write(message):
    data = (json.dumps(message) + "\n").encode()
    with stdout:
        while data:
            data = data[os.write(1, data) :]


def answer(request, cancelled):  # noqa: PLR0911 - one for each case
    method, params = request["method"], request.get("params", {})
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        return {"ok": True, "result": description()}
    op, args = params["op"], params["args"]
    if op == "relay":
        if "resume" not in params:
            return {"pending": {"syscalls": [{"name": "invoke", "args": args}]}}
        return params["resume"]["results"][0]
    to = args.get("to", 10**9)
    for n in range(1, to + 1):
        write({"id": request["id"], "chunk": {"n": n, "pad": "x" * args.get("size", 0)}})
        if cancelled.wait(args.get("pause", 0)) if args.get("pause") else cancelled.is_set():
            return {"ok": False, "error": {"code": "cancelled", "message": f"after {n}"}}
    if op == "fail":
        return {"ok": False, "error": {"code": "mine", "message": "after all"}}
    return {"ok": True, "result": {"count": to}}


def serve(request):
    reply = answer(request, running[request["id"]])
    del running[request["id"]]
    write({"id": request["id"], **reply})


def description():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="streamer")
    parser.add_argument("--kind", default="provider")
    parser.add_argument("--capabilities", default=[], type=json.loads)
    schemas = {"count": {}, "fail": {}, "endless": {}, "relay": {}}
    return {**vars(parser.parse_args()), "version": "0.1.0", "inputs": schemas, "outputs": schemas}


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["method"] == "cancel":
            running.get(message["params"]["id"], Event()).set()
        else:
            running[message["id"]] = Event()
            Thread(target=serve, args=(message,), daemon=True).start()
