"""A tool that counts words: a module over STDIO JSON, in plain Python.

Each line on stdin is a request, each line on stdout a reply; both are JSON objects. It needs no library, no
registration and no state.
"""

import errno
import json
import sys
from pathlib import Path
from typing import Any

DESCRIPTION: dict[str, Any] = {
    "name": "wordcount",
    "version": "0.1.0",
    "kind": "tool",
    "capabilities": ["fs:read:../.."],
    "inputs": {
        "count": {
            "description": "Counts words (separated by ASCII space), line ends and bytes of a file or a text.",
            "type": "object",
            "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
            "oneOf": [{"required": ["path"]}, {"required": ["text"]}],
        }
    },
    "outputs": {
        "count": {
            "type": "object",
            "required": ["words", "lines", "bytes"],
            "properties": {"words": {"type": "integer"}, "lines": {"type": "integer"}, "bytes": {"type": "integer"}},
        }
    },
}


class Refused(Exception):  # it becomes a reply, and is no error of this program
    """The request is refused. The two arguments are the code and the message of the reply."""


def content(args: object) -> bytes:
    """Return the bytes to count."""
    if not isinstance(args, dict) or ("path" in args) == ("text" in args):
        raise Refused("bad_request", "args: expected either path or text")
    field = "path" if "path" in args else "text"
    if not isinstance(value := args[field], str):
        raise Refused("bad_request", f"args.{field}: expected a string")
    try:
        return value.encode() if field == "text" else Path(value).read_bytes()
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "an error")
        raise Refused("bad_request", f"args.path: expected a readable file, got {reason}") from error
    except ValueError as error:  # a lone surrogate; in a path, also NUL
        raise Refused("bad_request", f"args.{field}: expected well-formed text") from error


def count(args: object) -> dict[str, int]:
    """Count words, line ends and bytes, as `wc` does in the C locale."""
    data = content(args)
    return {"words": len(data.split()), "lines": data.count(b"\n"), "bytes": len(data)}


def answer(method: str, params: dict[str, Any]) -> object:
    """Return the result of one request."""
    if method == "health":
        return {"status": "ok"}
    if method == "describe":
        return DESCRIPTION
    if method != "invoke" or params.get("op") != "count":
        raise Refused("unsupported_op", f"wordcount does not know {params.get('op', method)!r}")
    return count(params.get("args"))


def main() -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:  # bytes: text mode would also end lines at \r
        request = json.loads(line)
        if "id" not in request:  # this is cancel: no call takes long enough for it
            continue
        reply: dict[str, object] = {"id": request["id"]}
        try:
            reply |= {"ok": True, "result": answer(request["method"], request.get("params", {}))}
        except Refused as refused:
            code, message = refused.args
            reply |= {"ok": False, "error": {"code": code, "message": message}}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
