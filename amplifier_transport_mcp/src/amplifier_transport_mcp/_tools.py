"""The ops of a server: its tools, and some methods of MCP.

Owns names, schemas and the description that the kernel verifies. It sends nothing to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core import BadRequest, Forbidden, Internal, UnsupportedOp

from ._optional import without_nulls
from ._schema import Schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amplifier_core import ModuleDescriptor

_TOOL = "x-mcp:tool"
_TEXT = {"type": "string"}
_PAGE = {"type": "object", "properties": {"cursor": _TEXT}, "additionalProperties": False}
_URI = {"type": "object", "required": ["uri"], "properties": {"uri": _TEXT}, "additionalProperties": False}
_PROMPT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": _TEXT, "arguments": {"type": "object", "additionalProperties": _TEXT}},
    "additionalProperties": False,
}
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "resources/list": ("resources", _PAGE, "resources"),
    "resources/templates/list": ("resources", _PAGE, "resourceTemplates"),
    "resources/read": ("resources", _URI, "contents"),
    "prompts/list": ("prompts", _PAGE, "prompts"),
    "prompts/get": ("prompts", _PROMPT, "messages"),
}
"""The ops beside the tools: the server's capability that is needed, the schema of arguments, the key of results."""


class Tools:
    """The tools of one server, and which of them may be called."""

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]],
        offered: Sequence[str],
        granted: Sequence[str] | None,
        flawed: Mapping[str, str],
        size: int,
    ) -> None:
        self._flawed = flawed
        self.size = size
        """Bytes of their listing."""
        self._tools = {tool["name"]: tool for tool in tools}
        self.granted = granted
        self._schemas = Schemas()
        self._inputs: dict[str, Callable[[Any, str], str]] = {}
        self._outputs: dict[str, Callable[[Any, str], str]] = {}
        self._methods = [op for op, (capability, _, _) in METHODS.items() if capability in offered]

    def fit(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Give the arguments that the server gets.

        Refuses an op that is unknown, that was not granted, or whose arguments do not fit.
        """
        if op in self._methods:
            schema = METHODS[op][1]
        elif op not in self._tools:
            if op in self._flawed:
                raise Internal(f"the server broke its contract: its tool {op!r}: {self._flawed[op]}")
            raise UnsupportedOp(f"the server has no tool {op!r}")
        elif not self._may(op):
            raise Forbidden(f"{_TOOL}:{op} was not granted", details={"capabilities": [f"{_TOOL}:{op}"]})
        else:
            schema = self._tools[op]["inputSchema"]
        if op not in self._inputs:
            self._inputs[op] = self._schemas.check(schema)
        given = without_nulls(args, schema)
        if op == "prompts/get" and isinstance(given.get("arguments"), dict):
            given["arguments"] = {name: value for name, value in given["arguments"].items() if value is not None}
        if fault := self._inputs[op](given, "args"):
            raise BadRequest(fault, details={"path": fault.partition(":")[0]})
        return given

    def check_result(self, op: str, result: Mapping[str, Any]) -> None:
        """Check structured content against the tool's own schema."""
        schema = self._tools[op].get("outputSchema")
        if schema is None:
            return
        if "structuredContent" not in result:
            raise Internal(f"the server broke its contract: {op} answered without structuredContent")
        if op not in self._outputs:
            self._outputs[op] = self._schemas.check(schema)
        if fault := self._outputs[op](result["structuredContent"], "structuredContent"):
            raise Internal(f"the server broke its contract: {op} answered {fault}")

    def describe(self, descriptor: ModuleDescriptor, server: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the module: every op that may be called, with its schemas."""
        tools = {name: tool for name, tool in self._tools.items() if self._may(name)}
        inputs = {name: _input(tool) for name, tool in tools.items()}
        outputs = {name: _output(tool) for name, tool in tools.items()}
        for op in self._methods:
            inputs[op] = METHODS[op][1]
            outputs[op] = {"type": "object", "required": [METHODS[op][2]]}
        told = [{key: tool[key] for key in tool if not key.endswith("Schema")} for tool in tools.values()]
        return {
            "name": descriptor.name,
            "version": descriptor.version,  # a server's own may be any text
            "kind": descriptor.kind,
            "capabilities": list(descriptor.capabilities),
            "inputs": inputs,
            "outputs": outputs,
            **({"flawed": dict(self._flawed)} if self._flawed else {}),
            "mcp": {**server, "tools": told, **({"flawed": dict(self._flawed)} if self._flawed else {})},
        }

    def _may(self, tool: str) -> bool:
        if self.granted is None:
            return True
        wanted = f"{_TOOL}:{tool}"
        return any(wanted == word or wanted.startswith(f"{word}:") for word in self.granted)


def _input(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tool's own schema together with the tool's description, for use in a prompt."""
    schema = tool["inputSchema"]
    return {"description": tool["description"], **schema} if tool.get("description") else schema


def _output(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "required": ["content"], "properties": {"content": {"type": "array"}}}
    if (own := tool.get("outputSchema")) is not None:
        # With an id of its own it is a schema resource: references to #/… stay inside.
        schema["properties"]["structuredContent"] = {"$id": f"mcp:output:{tool['name']}", **own}
        schema["required"] = ["content", "structuredContent"]
    return schema
