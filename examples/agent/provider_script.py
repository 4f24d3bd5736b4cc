"""A provider without a network and a model, made with the kit: it follows a script, whatever the goal is, and says so.

It streams one word in each chunk before its reply. When the caller gives up, it is cancelled at the next word.
"""

import asyncio
import json
from typing import Any

from amplifier_module import Context, Module

module = Module("script", kind="provider", version="0.1.0")

Object = dict[str, Any]
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


def next_message(messages: list[Object]) -> Object:
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


@module.op
async def complete(messages: list[Object], context: Context, tools: list[Object] | None = None) -> Object:
    """Give the next message. The script knows its tools: those that are offered make no difference."""
    del tools
    message = next_message(messages)
    for n, word in enumerate(message["content"].split(" ")):
        context.chunk({"text": f" {word}" if n else word})
        await asyncio.sleep(PAUSE)
    return {"message": message}


if __name__ == "__main__":
    module.run()
