"""A tool in Python: writes a note, and adds an event about it to its reply, for the log.

Its descriptor gives it five minutes. The policy of this example asks a person first, and the deadline of an invocation
includes the time that the person takes.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = {
    "name": "note",
    "version": "0.1.0",
    "kind": "tool",
    "capabilities": ["fs:write:notes"],
    "inputs": {
        "write": {
            "description": "Writes a note to the folder notes; one that is there under this name is replaced.",
            "type": "object",
            "required": ["name", "text"],
            "properties": {"name": {"type": "string", "pattern": r"^[\w-]+\.md$"}, "text": {"type": "string"}},
        }
    },
    "outputs": {"write": {"type": "object", "required": ["path", "bytes"]}},
}


def bad_request(message: str) -> dict[str, Any]:
    """Return the reply that says which argument is wrong."""
    return {"ok": False, "error": {"code": "bad_request", "message": message}}


def write(args: dict[str, Any]) -> dict[str, Any]:
    """Write one note."""
    name, text = args.get("name"), args.get("text")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+\.md", name):
        return bad_request("args.name: expected a name like this-one.md")
    if not isinstance(text, str):
        return bad_request("args.text: expected a string")
    path = Path("notes", name)
    path.parent.mkdir(exist_ok=True)
    written = {"path": str(path), "bytes": path.write_bytes(text.encode())}
    return {"ok": True, "result": written, "events": [{"event": "artifact:write", "data": written}]}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        return {"ok": True, "result": DESCRIPTION}
    if params["op"] == "write":
        return write(params["args"])
    return {"ok": False, "error": {"code": "unsupported_op", "message": "note knows write alone"}}


def main() -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:  # cancel has no id and gets no reply
            reply = answer(request["method"], request.get("params", {}))
            print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
