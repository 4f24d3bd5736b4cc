"""An STDIO module that writes the bytes of its arguments, and then a correct reply.

The operation `bad` writes ``args["bytes"]``, which are hexadecimal; `$ID` in them becomes the id of the request.
"""

import json
import sys


def answer(method, params):
    if method == "health":
        return {"status": "ok"}
    if method == "describe":
        return {"name": "say", "version": "1.0.0", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
    return params["args"]


def noise(params):
    if params.get("op") != "bad" or "resume" in params:
        return b""
    return bytes.fromhex(params["args"]["bytes"]) + b"\n"


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["method"] != "cancel":
            params = request.get("params", {})
            reply = json.dumps({"id": request["id"], "ok": True, "result": answer(request["method"], params)}).encode()
            # one write, so that bytes after a whole answer are there before the next request
            sys.stdout.buffer.write(noise(params).replace(b"$ID", request["id"].encode()) + reply + b"\n")
            sys.stdout.flush()
