"""The client that the conformance suite of MCP runs, once a scenario: the kernel, with the scenario's server mounted.

client.py URL

It calls whatever the server offers, with arguments made from the schemas or given by the scenario, and lets a mounted
module answer what the server asks. What it has to say goes to stderr, which the suite keeps.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from amplifier_core import Kernel, KernelError, Plan

PERSON = Path(__file__).with_name("person.py")
SERVER = "/mnt/tools/server"
ANSWERS = {"path": "/mnt/tools/person", "op": "answer"}


async def main(url):
    """Mount the server and whoever answers it, and call everything."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    given = {}
    for each in context.get("toolCalls", ()):
        given.setdefault(each["name"], []).append(each["arguments"])
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan(goal="conform", inputs={}))
        await session.register_hook("policy:request", allow)
        person = {"type": "stdio", "command": [sys.executable, str(PERSON)]}
        await mount(session, "person", person, [], trusted=True)
        server = {"type": "mcp", "url": url, "sampling": ANSWERS, "elicitation": ANSWERS, "roots": []}
        await mount(session, "server", server, [f"sys:invoke:{ANSWERS['path']}"])
        described = await session.describe(SERVER)
        tools = {op: schema for op, schema in described["inputs"].items() if "/" not in op}
        await asyncio.gather(*(call_tool(session, op, tools, given) for op in tools))
        if "resources/list" in described["inputs"]:
            for resource in (await session.invoke(SERVER, "resources/list", {}))["resources"]:
                await call(session, "resources/read", {"uri": resource["uri"]})
        if "prompts/list" in described["inputs"]:
            for prompt in (await session.invoke(SERVER, "prompts/list", {}))["prompts"]:
                arguments = {each["name"]: "x" for each in prompt.get("arguments", ())}
                await call(session, "prompts/get", {"name": prompt["name"], "arguments": arguments})


async def mount(session, name, transport, capabilities, **more):
    """Mount a tool."""
    descriptor = {"name": name, "kind": "tool", "capabilities": capabilities, "transport": transport}
    await session.mount("/mnt/tools", descriptor, **more)


async def allow(_event):
    """Allow everything: who may do what is not what is tested."""
    return {"decision": "allow"}


async def call_tool(session, op, tools, given):
    """Call one tool with each of the arguments given, or with some that fit."""
    focal = next((schema for name, schema in tools.items() if name != op), {})
    for args in given.get(op, [{name: value_of(schema, focal) for name, schema in wanted(tools[op])}]):
        await call(session, op, args)


def wanted(schema):
    """Give the properties that a schema asks for."""
    return [(name, schema["properties"][name]) for name in schema.get("required", ())]


def value_of(schema, focal):
    """Make a value that fits; an object is the schema of another tool, which one scenario wants to have echoed."""
    if schema.get("enum"):
        return schema["enum"][0]
    return {"number": 2, "integer": 2, "boolean": True, "array": [], "object": focal}.get(schema.get("type"), "x")


async def call(session, op, args):
    """Call one op, and tell what came of it."""
    try:
        print(op, args, await session.invoke(SERVER, op, args), file=sys.stderr)
    except KernelError as error:
        print(op, args, error, error.details, file=sys.stderr)


asyncio.run(main(sys.argv[1]))
