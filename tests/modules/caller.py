"""A module that calls the kernel: single-threaded, holding nothing between its turns, over STDIO.

caller.py [--name NAME] [--kind KIND] [--capabilities JSON]

call   {"syscalls": […]}            makes them all at once; the result is {"results": […], "state": …}
turns  {"count": n, "syscall": …}   makes one call a turn, n times; the result is the number of turns
relay  {"path", "op", "args"}       invokes that, and gives back its result or its error
emit   {"events": […]}              gives its reply with these events
twice  {"keep": bool}               lists the mounts; the result is its second params, with the first ones as kept state
raw    {"reply": …}                 replies with exactly that
"""

import json
import sys


def description():
    told = {"name": "caller", "kind": "orchestrator", "capabilities": []}
    for name in told:
        if (option := f"--{name}") in sys.argv:  # argparse takes as long to import as json
            value = sys.argv[sys.argv.index(option) + 1]
            told[name] = json.loads(value) if name == "capabilities" else value
    schemas = {"call": {}, "turns": {}, "relay": {}, "emit": {}, "raw": {}, "twice": {}}
    return {**told, "version": "0.1.0", "inputs": schemas, "outputs": schemas}


def pending(syscalls, state):
    return {"pending": {"syscalls": syscalls, "state": state}}


def ok(result):
    return {"ok": True, "result": result}


def call(args, resume):
    if resume is None:
        return pending(args["syscalls"], args.get("state"))
    return ok({"results": resume["results"], "state": resume["state"]})


def turns(args, resume):
    done = 0 if resume is None else resume["state"]["done"] + 1
    return ok(done) if done == args["count"] else pending([args["syscall"]], {"done": done})


def relay(args, resume):
    if resume is None:
        return pending([{"name": "invoke", "args": args}], None)
    (result,) = resume["results"]
    return result


def answer(method, params):
    if method == "health":
        return ok({"status": "ok"})
    if method == "describe":
        return ok(description())
    op, args, resume = params["op"], params["args"], params.get("resume")
    if op == "emit":
        return {**ok({}), "events": args["events"]}
    if op == "twice":
        kept = {"state": params} if args.get("keep") else {}
        return ok(params) if resume else {"pending": {"syscalls": [{"name": "mounts"}], **kept}}
    if op == "raw":
        return args["reply"]
    return {"call": call, "turns": turns, "relay": relay}[op](args, resume)


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:
            print(json.dumps({"id": request["id"], **answer(request["method"], request.get("params"))}), flush=True)
