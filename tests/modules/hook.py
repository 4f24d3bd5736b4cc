"""A hook that writes each event it gets to a file, one JSON line each, and answers policy requests as it is told.

    hook.py FILE [ANSWER] [--name NAME] [--capabilities JSON]

ANSWER is allow, deny, abstain (the default), a whole decision as a JSON object, or a fault: garbage, fail, exit or
hang (no answer at all). All other events are answered at once.
"""

import argparse
import json
import os
import sys
from pathlib import Path

FAULTS = {
    "garbage": {"ok": True, "result": "garbage"},
    "fail": {"ok": False, "error": {"code": "internal", "message": "told to fail"}},
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("answer", nargs="?", default="abstain")
    parser.add_argument("--name", default="hook")
    parser.add_argument("--capabilities", default=[], type=json.loads)
    told = parser.parse_args()
    description = {
        "name": told.name,
        "version": "0.1.0",
        "kind": "hook",
        "capabilities": told.capabilities,
        "inputs": {"on_event": {}},
        "outputs": {"on_event": {}},
    }
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["method"] == "cancel":
            continue
        if request["method"] == "health":
            reply = {"ok": True, "result": {"status": "ok"}}
        elif request["method"] == "describe":
            reply = {"ok": True, "result": description}
        else:
            event = request["params"]["args"]["event"]
            with told.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
            reply = decision(told.answer) if event["event"] == "policy:request" else {"ok": True, "result": {}}
        if reply is not None:
            print(json.dumps({"id": request["id"], **reply}), flush=True)


def decision(answer):
    """Return the reply to a policy request; None is no reply."""
    if answer == "exit":
        os._exit(1)
    if answer == "hang":
        return None
    if answer in FAULTS:
        return FAULTS[answer]
    return {"ok": True, "result": json.loads(answer) if answer.startswith("{") else {"decision": answer}}


if __name__ == "__main__":
    main()
