"""A module that writes down what it was called with: ledger.py FILE."""

import json
import sys
from pathlib import Path

DESCRIPTION = {"name": "ledger", "kind": "tool", "version": "0.1.0", "capabilities": []}


def answer(method, params, ledger):
    if method == "invoke":
        ledger.write(f"{params['args']['n']}\n")
        ledger.flush()
        return params["args"]
    return {"status": "ok", **DESCRIPTION, "inputs": {"write": {}}, "outputs": {"write": {}}}


def serve(ledger):
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:
            result = answer(request["method"], request.get("params"), ledger)
            print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("a") as ledger:
        serve(ledger)
