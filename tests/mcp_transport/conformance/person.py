"""An STDIO module that answers what servers ask of a person, or of a model: it agrees, and leaves what is preset."""

import json
import sys

SCHEMAS = {"inputs": {"answer": {"type": "object"}}, "outputs": {"answer": {"type": "object"}}}
DESCRIPTION = {"name": "person", "version": "1.0.0", "kind": "tool", "capabilities": [], **SCHEMAS}


def answer(args):
    """Fill in a form, or go on with a conversation."""
    if "messages" in args:
        said = {"role": "assistant", "content": {"type": "text", "text": "Yes."}}
        return {**said, "model": "person", "stopReason": "endTurn"}
    fields = args.get("requestedSchema", {}).get("properties", {})
    return {"action": "accept", "content": {name: value_of(schema) for name, schema in fields.items()}}


def value_of(schema):
    """Give the value that is preset, or one that fits."""
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    return {"boolean": True, "integer": 1, "number": 1}.get(schema.get("type"), "x")


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    params = request.get("params", {})
    results = {"health": {"status": "ok"}, "describe": DESCRIPTION}
    result = results.get(request["method"]) or answer(params["args"])
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
