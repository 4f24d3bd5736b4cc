"""A context module, made with the kit: makes a transcript shorter, by fixed rules and without a model.

The beginning (the system prompt and the goal) and the last exchange stay unchanged. Between them it keeps one line for
each message and each call. The kernel has the session's context, so a compaction makes two system calls. It sends its
events to the log in its replies. It keeps nothing in its process, so it can go on in another one.
"""

from typing import Annotated, Any

from amplifier_module import Context, Module, ModuleError

module = Module(
    "compactor",
    kind="context",
    version="0.1.0",
    capabilities=["sys:context.get", "sys:context.set_fragment:transcript"],
)

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


@module.op(stateless=True)
async def compact(fragment: Annotated[str, "The key of a list of chat messages."], context: Context) -> dict[str, Any]:
    """Make a transcript shorter."""
    messages = (await context.get_fragments()).get(fragment)
    if not isinstance(messages, list):
        raise ModuleError("bad_request", f"args.fragment: expected the key of a transcript, got {fragment!r}")
    shorter = compacted(messages)
    told = {"fragment": fragment, "before": len(messages), "after": len(shorter)}
    if shorter is not messages:
        context.event("context:pre_compact", {"fragment": fragment, "messages": len(messages)})
        await context.set_fragment(fragment, shorter)
        context.event("context:post_compact", told)
    return told


if __name__ == "__main__":
    module.run()
