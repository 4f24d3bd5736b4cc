"""The module around each attack in Python: it answers health and describe, and an invocation runs the attack."""

import json
import os
import sys


def serve(attack):
    """Answer until the end of input; the result says what the attack got, or what stopped it."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        if request["method"] == "health":
            result = {"status": "ok"}
        elif request["method"] == "describe":
            result = json.loads(os.environ["DESCRIPTION"])
        else:
            result = tried(attack)
        print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)


def tried(attack):
    """Run the attack and return its outcome."""
    try:
        return {"got": attack()}
    except (OSError, ValueError, RuntimeError) as error:
        return {"stopped": f"{type(error).__name__}: {error}"}


def target(name):
    """Return what the test set up for attacks under this name."""
    return os.environ[name]


def processes():
    """List the processes that can be seen, except this one."""
    return [name for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def first(attempts):
    """Return the result of the first attempt that succeeds; raise the error of the last one."""
    last = OSError("there was nothing to try")
    for attempt in attempts:
        try:
            return attempt()
        except OSError as error:
            last = error
    raise last
