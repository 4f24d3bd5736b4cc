"""Tools for a model, made of what is mounted, and a model's calls, made on what is mounted: plain functions to copy.

    python examples/tools.py

Each operation of each mounted tool becomes one function that a model may call. Its description and its JSON Schema are
what the module's ``describe`` says. What goes wrong in a call is text for the model, which may do better the next time.
Here no model is asked: the program prints what one would get, and carries out calls that one might make.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amplifier_core import Kernel, KernelError, Plan, Session
from amplifier_module import Module
from amplifier_transport_inproc import descriptor_of

NAME_MAX = 64  # characters of a function's name: [a-zA-Z0-9_-]
DESCRIPTION_MAX = 1024  # characters
RESULT_MAX = 8000  # characters of a result that the model gets to see
TIMEOUT = 60.0  # seconds for one call

Object = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One operation of a mounted module. ``schema`` is the JSON Schema of its arguments."""

    path: str
    op: str
    description: str
    schema: Object

    @property
    def name(self) -> str:
        """The function's name."""
        return function_name(self.path, self.op)


async def tools_of(session: Session, kinds: Iterable[str] = ("tool",)) -> list[Tool]:
    """List the operations of the modules of these kinds."""
    paths = [mount["path"] for mount in await session.mounts() if mount["kind"] in set(kinds)]
    described = await asyncio.gather(*(session.describe(path) for path in paths))
    return [
        make_tool(path, op, schema)
        for path, description in zip(paths, described, strict=True)
        for op, schema in description["inputs"].items()
    ]


def make_tool(path: str, op: str, schema: Any) -> Tool:
    """Make a tool of an operation, whose schema may be a bool. Its arguments are an object, said or not."""
    fields = dict(schema) if isinstance(schema, dict) else {}
    description = str(fields.pop("description", f"{op} of {path}"))
    return Tool(path, op, description[:DESCRIPTION_MAX], {"type": "object", "properties": {}, **fields})


# Names. `/mnt/tools/files` and `list` become `files__list`; other places stand before: `agents__editor__improve`.


def function_name(path: str, op: str) -> str:
    """Name an operation with letters, digits, _ and - alone. A name that would be too long ends with a digest."""
    place, module = path.removeprefix("/mnt/").split("/")
    parts = [module, op] if place == "tools" else [place, module, op]
    name = "__".join(map(escaped, parts))
    if len(name) <= NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: NAME_MAX - 19]}_--{digest}"  # no other name has _-- in it


def path_and_op(name: str) -> tuple[str, str]:
    """Give what was named. Raises ``LookupError`` for no name of ``function_name``, or one that ends with a digest."""
    *place, module, op = ["", *(unescaped(part) for part in re.split("__(?!_*$)", name, maxsplit=2))]
    where = "".join(place) or "tools"
    if "_--" in name or not module or not op or function_name(f"/mnt/{where}/{module}", op) != name:
        raise LookupError(f"{name!r} names no operation")
    return f"/mnt/{where}/{module}", op


def escaped(text: str) -> str:
    """Write what a name cannot have as _-HEX-, and each underscore that no letter or digit follows."""
    return re.sub(r"_(?![a-zA-Z0-9])|[^a-zA-Z0-9_-]", lambda found: f"_-{ord(found[0]):x}-", text)


def unescaped(text: str) -> str:
    """Undo ``escaped``."""
    return re.sub(r"_-([0-9a-f]{1,6})-", lambda found: chr(int(found[1], 16)), text)


# Lists of tools, as the interfaces of models want them.


def for_openai(tools: Iterable[Tool]) -> list[Object]:
    """Give ``tools`` of a request for a chat completion."""
    described = ({"name": tool.name, "description": tool.description, "parameters": tool.schema} for tool in tools)
    return [{"type": "function", "function": each} for each in described]


def for_anthropic(tools: Iterable[Tool]) -> list[Object]:
    """Give ``tools`` of a request for a message."""
    return [{"name": tool.name, "description": tool.description, "input_schema": tool.schema} for tool in tools]


# Calls. A failed one is no exception but text: the model is told, and goes on.


async def call(session: Session, tools: Iterable[Tool], name: str, arguments: object) -> tuple[bool, str]:
    """Carry out one call. Give whether it worked, and text for the model. ``arguments`` is an object or its JSON."""
    found = {tool.name: tool for tool in tools}
    tool = found.get(name)
    if tool is None:
        return False, f"error: there is no tool {name[:NAME_MAX]!r}; there are {', '.join(found) or 'none'}"
    try:
        args = checked(arguments, tool.schema)
        return True, shortened(await session.invoke(tool.path, tool.op, args, timeout=TIMEOUT))
    except ValueError as error:
        return False, f"error: bad_request: {error}"
    except KernelError as error:
        return False, f"error: {error.code}: {error.message}"[:RESULT_MAX]


def checked(arguments: object, schema: Object) -> Object:
    """Read the arguments of a call. Raises ``ValueError`` with one line. What is in the members, the module checks."""
    args = arguments
    if isinstance(args, str):
        try:
            args = json.loads(args or "{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the arguments are not JSON: {error}") from None
    if not isinstance(args, dict):
        raise ValueError(f"the arguments are no object, but {type(args).__name__}")
    if missing := [name for name in schema.get("required", ()) if name not in args]:
        raise ValueError(f"missing: {', '.join(missing)}")
    unknown = [name for name in args if name not in schema["properties"]]
    if unknown and schema.get("additionalProperties") is False:
        known = ", ".join(schema["properties"]) or "none"
        raise ValueError(f"unknown: {', '.join(unknown)[:200]}; known are {known}")
    return args


def shortened(result: object) -> str:
    """Give a result as text: text as it is, anything else as JSON."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return text if len(text) <= RESULT_MAX else f"{text[:RESULT_MAX]} … ({len(text)} characters in all)"


async def answer_openai(session: Session, tools: Iterable[Tool], message: Object) -> list[Object]:
    """Carry out the calls of a chat completion's message, all at once. Give the messages that answer them."""
    wanted, known = message.get("tool_calls") or [], list(tools)
    functions = [each["function"] for each in wanted]
    done = await asyncio.gather(*(call(session, known, each["name"], each["arguments"]) for each in functions))
    return [
        {"role": "tool", "tool_call_id": each["id"], "content": text}
        for each, (_, text) in zip(wanted, done, strict=True)
    ]


async def answer_anthropic(session: Session, tools: Iterable[Tool], message: Object) -> Object:
    """Carry out the calls of a message's blocks, all at once. Give the message that answers them."""
    wanted, known = [block for block in message["content"] if block["type"] == "tool_use"], list(tools)
    done = await asyncio.gather(*(call(session, known, each["name"], each["input"]) for each in wanted))
    results = [
        {"type": "tool_result", "tool_use_id": each["id"], "content": text, "is_error": not worked}
        for each, (worked, text) in zip(wanted, done, strict=True)
    ]
    return {"role": "user", "content": results}


# A run.

words = Module("words", version="0.1.0")


@words.op
def count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def main() -> None:
    """Show the tools of a session, and two calls of each kind: one that works, and one that does not."""
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan(goal="show tools", inputs={}))
        await session.mount("/mnt/tools", descriptor_of(words), trusted=True)
        tools = await tools_of(session)
        print("OpenAI:", json.dumps(for_openai(tools), indent=2))
        print("Anthropic:", json.dumps(for_anthropic(tools), indent=2))
        functions = [{"name": "words__count", "arguments": arguments} for arguments in ('{"text": "a b"}', "{}")]
        calls = [{"id": f"call_{n}", "type": "function", "function": each} for n, each in enumerate(functions)]
        print(await answer_openai(session, tools, {"role": "assistant", "tool_calls": calls}))
        blocks = [
            {"id": f"use_{n}", "name": "words__count", "input": each} for n, each in enumerate(({"text": "a"}, {}))
        ]
        content = [{"type": "text", "text": "Let me count."}, *({"type": "tool_use", **block} for block in blocks)]
        print(await answer_anthropic(session, tools, {"role": "assistant", "content": content}))


if __name__ == "__main__":
    asyncio.run(main())
