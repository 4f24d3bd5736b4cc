"""A provider without a network and a model: it follows a script, whatever the goal is, and says so.

It streams one word in each chunk before its reply. To read `cancel` in the meantime, it answers each request in a
thread of its own.
"""

import json
import sys
from threading import Event, Lock, Thread
from typing import Any

MESSAGES = {"messages": {"type": "array", "items": {"type": "object"}}}
TOOLS = {"tools": {"type": "array", "items": {"type": "object"}}}
DESCRIPTION = {
    "name": "script",
    "version": "0.1.0",
    "kind": "provider",
    "capabilities": [],
    "inputs": {"complete": {"type": "object", "required": ["messages"], "properties": {**MESSAGES, **TOOLS}}},
    "outputs": {"complete": {"type": "object", "required": ["message"], "properties": {"message": {"type": "object"}}}},
}

SCRIPT: list[tuple[str, list[tuple[str, dict[str, str]]]]] = [
    (
        "I follow a script, I am no model: any goal is the same to me. First I look around, with two tools at once.",
        [("files_list", {"path": "."}), ("grep_search", {"pattern": '^(#|//|""") ?An? ', "name": "*.*"})],
    ),
    ("Next I ask for something that policy denies.", [("files_remove", {"name": "plan.md"})]),
    (
        "That stays, then. Now a note, for which a person is asked.",
        [("note_write", {"name": "script.md", "text": "A script was here, and looked around.\n"})],
    ),
]
PAUSE = 0.02  # seconds between two words

running: dict[str, Event] = {}
stdout = Lock()


def write(message: dict[str, Any]) -> None:
    """Write one line; a lock keeps lines of other threads out of it."""
    with stdout:
        print(json.dumps(message), flush=True)


def next_message(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the script's next message. The ids of the last calls give the step, even in a compacted transcript."""
    asked = [call["id"] for message in messages[-1:-4:-1] for call in message.get("tool_calls") or ()]
    step = int(asked[0].split("-")[1]) if asked else 0
    if step == len(SCRIPT):
        outcome = messages[-1]["content"]
        note = f"was not written ({outcome})" if outcome.startswith("error") else f"is there: {outcome}"
        return {"role": "assistant", "content": f"That is all: I looked around, and the note {note}"}
    text, calls = SCRIPT[step]
    tool_calls = [
        {"id": f"step-{step + 1}-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
        for n, (name, args) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": tool_calls}


def complete(request_id: str, args: dict[str, Any], cancelled: Event) -> dict[str, Any]:
    """Stream the next message and return it, unless it is cancelled in the meantime."""
    message = next_message(args["messages"])
    words = message["content"].split(" ")
    for n, word in enumerate(words):
        write({"id": request_id, "chunk": {"text": f" {word}" if n else word}})
        if cancelled.wait(PAUSE):
            return {"ok": False, "error": {"code": "cancelled", "message": f"after {n + 1} of {len(words)} words"}}
    return {"ok": True, "result": {"message": message}}


def answer(request: dict[str, Any], cancelled: Event) -> dict[str, Any]:
    """Return the reply to one request."""
    if request["method"] == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if request["method"] == "describe":
        return {"ok": True, "result": DESCRIPTION}
    if request["params"]["op"] == "complete":
        return complete(request["id"], request["params"]["args"], cancelled)
    return {"ok": False, "error": {"code": "unsupported_op", "message": "script knows complete alone"}}


def serve(request: dict[str, Any], cancelled: Event) -> None:
    """Answer one request."""
    reply = answer(request, cancelled)
    del running[request["id"]]
    write({"id": request["id"], **reply})


def main() -> None:
    """Read line by line until stdin ends, and then cancel all requests that are running."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["method"] == "cancel":
            running.get(request["params"]["id"], Event()).set()
        else:
            running[request["id"]] = Event()
            Thread(target=serve, args=(request, running[request["id"]])).start()
    for cancelled in list(running.values()):
        cancelled.set()


if __name__ == "__main__":
    main()
