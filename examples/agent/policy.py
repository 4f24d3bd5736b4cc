"""A policy hook, made with the kit: the fixed rules of this example.

The kernel asks it before each mount and each invocation. It allows each call that reads, and denies each call that
removes. On a call that writes it abstains: another hook, in main.py, asks a person. The kernel denies a request that no
hook allows.
"""

from typing import Any

from amplifier_module import Module

module = Module("policy", kind="hook", version="0.1.0")

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


@module.op
def on_event(event: dict[str, Any]) -> dict[str, Any]:
    """Decide on one policy:request."""
    request = event["data"]
    path = request["path"]
    if request["action"] == "mount" and path in MOUNTS:
        return {"decision": "allow", "scope": MOUNTS[path], "reason": "it belongs to this example"}
    if request["action"] == "invoke":
        return CALLS.get((path, request["op"]), ABSTAIN)
    return ABSTAIN


if __name__ == "__main__":
    module.run()
