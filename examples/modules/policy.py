"""A policy hook: a module over STDIO JSON that the kernel asks before each mount and each invocation.

It denies a call whose path looks like a secret, and allows each mount and call whose capabilities only read. On
everything else it abstains. The kernel denies a request that no hook allows.
"""

import json
import sys
from pathlib import PurePosixPath
from typing import Any

DESCRIPTION = {
    "name": "policy",
    "version": "0.1.0",
    "kind": "hook",
    "capabilities": [],
    "inputs": {"on_event": {"type": "object", "required": ["event"]}},
    "outputs": {"on_event": {"type": "object", "required": ["decision"]}},
}
SECRET_NAMES = {".env", ".netrc", ".npmrc", ".pypirc", "id_ed25519", "id_rsa"}
SECRET_SUFFIXES = {".env", ".key", ".p12", ".pem"}


def is_secret(path: str) -> bool:
    """Tell whether the name of a file says that it holds a secret; `.git` keeps the credentials of remotes."""
    name = PurePosixPath(path.replace("\\", "/").lower())
    return ".git" in name.parts or name.name in SECRET_NAMES or name.suffix in SECRET_SUFFIXES


def decide(request: dict[str, Any]) -> dict[str, Any]:
    """Decide on the data of one policy:request."""
    if request["action"] not in {"mount", "invoke"}:
        return {"decision": "abstain"}
    path = (request.get("args") or {}).get("path")
    if request["action"] == "invoke" and isinstance(path, str) and is_secret(path):
        return {"decision": "deny", "reason": f"{path} looks like a secret"}
    wanted = request["capabilities"]
    if wanted and all(capability.startswith("fs:read:") for capability in wanted):
        return {"decision": "allow", "scope": "call", "reason": "it only reads"}
    return {"decision": "abstain"}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        return {"ok": True, "result": DESCRIPTION}
    if method != "invoke" or params.get("op") != "on_event":
        return {"ok": False, "error": {"code": "unsupported_op", "message": "a policy hook knows on_event alone"}}
    event = params["args"]["event"]
    if event["event"] != "policy:request":
        return {"ok": True, "result": {"decision": "abstain"}}
    return {"ok": True, "result": decide(event["data"])}


def main() -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:  # cancel has no id and gets no reply
            reply = answer(request["method"], request.get("params", {}))
            print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
