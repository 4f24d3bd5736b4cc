"""A policy hook: the static rules of this example. The kernel asks it before anything is mounted or invoked.

Reading is allowed, each time it is asked for; removing is denied. On writing it abstains: that needs somebody else's
yes, and main.py has a hook that asks a person. What nobody allows is denied.
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
MOUNTS = {  # what may be mounted, and whether what it may do is then settled for the session or asked call by call
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
        if "id" in request:  # what has none, cancel, gets no reply
            reply = answer(request["method"], request.get("params", {}))
            print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
