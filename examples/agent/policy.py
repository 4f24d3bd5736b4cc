"""A policy hook: the fixed rules of this example. The kernel asks it before each mount and each invocation.

It allows each call that reads, and denies each call that removes. On a call that writes it abstains: another hook, in
main.py, asks a person. The kernel denies a request that no hook allows.
"""

import json
import sys
from typing import Any

DESCRIPTION = {
    "name": "policy",
    "version": "0.1.0",
    "kind": "hook",
    "capabilities": [],
    "inputs": {"on_event": {"type": "object", "required": ["event"]}},
    "outputs": {"on_event": {"type": "object", "required": ["decision"]}},
}

ABSTAIN = {"decision": "abstain"}
MOUNTS = {  # what may be mounted; whether its calls are then allowed for the session, or asked about one by one
    "/mnt/orchestrators/loop": "session",
    "/mnt/context/compactor": "session",
    "/mnt/providers/script": "session",
    "/mnt/providers/openai": "session",
    "/mnt/tools/files": "call",
    "/mnt/tools/grep": "call",
    "/mnt/tools/note": "call",
}
CALLS = {
    ("/mnt/tools/files", "list"): {"decision": "allow", "reason": "it only reads"},
    ("/mnt/tools/grep", "search"): {"decision": "allow", "reason": "it only reads"},
    ("/mnt/tools/files", "remove"): {"decision": "deny", "reason": "what is gone is gone"},
}


def decide(request: dict[str, Any]) -> dict[str, Any]:
    """Decide on the data of one policy:request."""
    path = request["path"]
    if request["action"] == "mount" and path in MOUNTS:
        return {"decision": "allow", "scope": MOUNTS[path], "reason": "it belongs to this example"}
    if request["action"] == "invoke":
        return CALLS.get((path, request["op"]), ABSTAIN)
    return ABSTAIN


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        return {"ok": True, "result": DESCRIPTION}
    if params["op"] == "on_event":
        return {"ok": True, "result": decide(params["args"]["event"]["data"])}
    return {"ok": False, "error": {"code": "unsupported_op", "message": "policy knows on_event alone"}}


def main() -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:  # cancel has no id and gets no reply
            reply = answer(request["method"], request.get("params", {}))
            print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
