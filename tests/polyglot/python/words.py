"""Count words. A thread for each request; a cancel sets its event."""

import json
import re
import sys
import threading
import traceback
from pathlib import Path

DESCRIPTION = json.loads((Path(__file__).parents[1] / "describe.json").read_text("utf-8"))

running: dict[str, threading.Event] = {}  # set, it cancels the request of that id
turn_to_write = threading.Lock()


class Failure(Exception):
    def __init__(self, code, message, **more):
        super().__init__(message)
        self.error = {"code": code, "message": message, **more}


def argument(args, name, kind, expected):
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise Failure("bad_request", f"args.{name}: expected {expected}")
    return value


def words_of(args):
    return re.findall("[^ \t\r\n]+", argument(args, "text", str, "a string"))


def count(args, **_):
    words = words_of(args)
    return {"words": len(words), "characters": len(args["text"]), "longest": max(words, key=len, default="")}


def report(args, resume, **_):
    tool = argument(args, "tool", str, "a string")
    texts = argument(args, "texts", list, "a list of strings")
    asked, words = 0, 0
    if resume:
        asked, words = resume["state"]["asked"], resume["state"]["words"]
        counted = resume["results"][0]
        if not counted["ok"]:
            raise Failure("report_failed", f"text {asked} was not counted", details={"cause": counted["error"]})
        words += counted["result"]["words"]
    if asked == len(texts):
        return {"words": words}
    invoke = {"name": "invoke", "args": {"path": tool, "op": "count", "args": {"text": texts[asked]}}}
    emit = {"name": "emit", "args": {"event": "words:counted", "data": {"text": asked + 1}}}
    return Pending(syscalls=[invoke, emit], state={"asked": asked + 1, "words": words})


class Pending(dict):
    """A reply that is no result yet."""


def tell(args, say, **_):
    words = words_of(args)
    for word in words:
        say(chunk={"word": word})
    return {"words": len(words)}


def wait(args, cancelled, **_):
    seconds = argument(args, "seconds", (int, float), "a number")
    if cancelled.wait(seconds):
        raise Failure("cancelled", "nobody waits any more")
    return {"seconds": seconds}


def fail(args, **_):
    raise Failure("out_of_ink", "buy some", details=argument(args, "details", dict, "an object"))


OPS = {op.__name__: op for op in (count, report, tell, wait, fail)}


def invoke(request, cancelled):
    params = request["params"]
    op = OPS.get(params["op"])
    if op is None:
        raise Failure("unsupported_op", f"words does not know {params['op']!r}")
    return op(
        params.get("args") or {},
        resume=params.get("resume"),
        cancelled=cancelled,
        say=lambda **reply: write(request, **reply),
    )


def answer(request, cancelled):
    try:
        result = invoke(request, cancelled)
    except Failure as failure:
        write(request, ok=False, error=failure.error)
    except Exception as mistake:  # noqa: BLE001 - ours: without a reply the caller would wait for its deadline
        traceback.print_exc()
        write(request, ok=False, error={"code": "internal", "message": repr(mistake)})
    else:
        write(request, **({"pending": result} if isinstance(result, Pending) else {"ok": True, "result": result}))
    running.pop(request["id"], None)


def write(request, **reply):
    line = json.dumps({"id": request["id"], **reply}, ensure_ascii=False) + "\n"
    with turn_to_write:
        sys.stdout.buffer.write(line.encode())
        sys.stdout.buffer.flush()


for line in sys.stdin.buffer:  # as bytes: it is UTF-8, whatever the locale says
    request = json.loads(line)
    match request["method"]:
        case "health":
            write(request, ok=True, result={"status": "ok"})
        case "describe":
            write(request, ok=True, result=DESCRIPTION)
        case "invoke":
            cancelled = running[request["id"]] = threading.Event()
            threading.Thread(target=answer, args=(request, cancelled)).start()
        case "cancel" if event := running.get(request["params"]["id"]):
            event.set()
for event in list(running.values()):  # stdin has ended, and so does the process, with its threads
    event.set()
