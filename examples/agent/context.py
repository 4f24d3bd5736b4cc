"""A context module: makes a transcript shorter, by fixed rules and without a model.

The beginning (the system prompt and the goal) and the last exchange stay unchanged. Between them it keeps one line for
each message and each call. The kernel has the session's context, so a compaction takes two turns: the module asks for
the fragments, and then sets one. It sends its events to the log in its replies.
"""

import json
import sys
from typing import Any

TRANSCRIPT = {
    "type": "object",
    "required": ["fragment"],
    "properties": {"fragment": {"type": "string", "description": "The key of a list of chat messages."}},
}
DESCRIPTION = {
    "name": "compactor",
    "version": "0.1.0",
    "kind": "context",
    "capabilities": ["sys:context.get", "sys:context.set_fragment:transcript"],
    "inputs": {"compact": {"description": "Makes a transcript shorter.", **TRANSCRIPT}},
    "outputs": {"compact": {"type": "object", "required": ["before", "after"]}},
}
TITLE = "Earlier steps, in short:"
LINE, LINES = 160, 60  # characters in a line, lines in a digest

Message = dict[str, Any]


def compacted(messages: list[Message]) -> list[Message]:
    """Return the messages, with one digest for all between the beginning and the last exchange."""
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        return messages
    first, last = roles.index("assistant"), len(roles) - 1 - roles[::-1].index("assistant")
    first -= messages[first - 1]["content"].startswith(TITLE)  # an older digest becomes part of the new one
    between = messages[first:last]
    if len(between) <= 1:  # a digest of one message is no shorter
        return messages
    digest = "\n".join([TITLE, *digest_of(between)[-LINES:]])
    return [*messages[:first], {"role": "user", "content": digest}, *messages[last:]]


def digest_of(messages: list[Message]) -> list[str]:
    """Return a line for each message with text, and for each call with its result."""
    results = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    lines: list[str] = []
    for message in messages:
        content = message.get("content") or ""
        if content.startswith(TITLE):
            lines += content.splitlines()[1:]
        elif message["role"] != "tool" and content:
            lines.append(shortened(f"{message['role']}: {content}"))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            lines.append(shortened(f"{function['name']}({function['arguments']}) -> {results.get(call['id'], '?')}"))
    return lines


def shortened(text: str) -> str:
    """Return one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= LINE else f"{line[:LINE]} …"


def compact(args: dict[str, Any], resume: dict[str, Any] | None) -> dict[str, Any]:
    """Return the next reply to one invocation: `pending` twice, then the result."""
    key = args.get("fragment")
    if resume is None:
        return {"pending": {"syscalls": [{"name": "context.get"}], "state": {}}}
    (result,), state = resume["results"], resume["state"]
    if not result["ok"]:
        return {"ok": False, "error": result["error"]}
    if "after" in state:
        return {"ok": True, "result": state, "events": [{"event": "context:post_compact", "data": state}]}
    messages = result["result"]["fragments"].get(key)
    if not isinstance(messages, list):
        return failure("bad_request", f"args.fragment: expected the key of a transcript, got {key!r}")
    shorter = compacted(messages)
    state = {"fragment": key, "before": len(messages), "after": len(shorter)}
    if shorter is messages:
        return {"ok": True, "result": state}
    call = {"name": "context.set_fragment", "args": {"key": key, "value": shorter}}
    event = {"event": "context:pre_compact", "data": {"fragment": key, "messages": len(messages)}}
    return {"pending": {"syscalls": [call], "state": state}, "events": [event]}


def failure(code: str, message: str) -> dict[str, Any]:
    """Return the reply that says what went wrong."""
    return {"ok": False, "error": {"code": code, "message": message}}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        return {"ok": True, "result": DESCRIPTION}
    if params["op"] == "compact":
        return compact(params["args"], params.get("resume"))
    return failure("unsupported_op", "compactor knows compact alone")


def main() -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:  # cancel has no id and gets no reply
            reply = answer(request["method"], request.get("params", {}))
            print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
