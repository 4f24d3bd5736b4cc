"""The module around each attack in Python: it answers the three questions, and an invocation tries the attack."""

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
    """Try it, and tell."""
    try:
        return {"got": attack()}
    except (OSError, ValueError, RuntimeError) as error:
        return {"stopped": f"{type(error).__name__}: {error}"}


def target(name):
    """What the test set up for attacks, under this name."""
    return os.environ[name]


def processes():
    """Every process that can be seen, but this one."""
    return [name for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def first(attempts):
    """Give the first that works; raises what the last one raised."""
    last = OSError("there was nothing to try")
    for attempt in attempts:
        try:
            return attempt()
        except OSError as error:
            last = error
    raise last
