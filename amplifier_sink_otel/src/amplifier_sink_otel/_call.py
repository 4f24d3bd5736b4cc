"""A call of a module in the words of the conventions: the name of its span, and its attributes.

Owns the use of the table in `_conventions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _conventions as words
from ._event import content_of, members_of, scalar_of, text_of

if TYPE_CHECKING:
    import msgspec

    from ._event import Event, Scalar
    from ._mounts import Mounted


class Call:
    """One ``module:invoke``."""

    def __init__(self, event: Event, mounted: Mounted, *, content: bool) -> None:
        self.operation: words.Operation = words.OPERATIONS.get(mounted.kind, words.CALL)
        self._event = event
        self._mounted = mounted
        self._data = members_of(event.data)
        self._op = text_of(self._data.get("op"))
        self._name = (event.module or "?").rpartition("/")[2]
        self._content = content
        self._is_provider = mounted.kind == "provider"
        self._model = text_of(self._members("args").get("model"))

    @property
    def operation_name(self) -> str:
        """The operation of the conventions; "": there is none."""
        return self._op if self._is_provider and self._op in words.PROVIDER_OPS else self.operation.name

    @property
    def subject(self) -> str:
        """What is called: a tool is an op of a module."""
        return f"{self._name}.{self._op}" if self._mounted.kind == "tool" and self._op else self._name

    @property
    def span_name(self) -> str:
        """The name of the span."""
        if self._is_provider:
            return f"{self.operation_name} {self._model}".rstrip()
        if self.operation.name:
            return f"{self.operation.name} {self.subject}"
        return f"{self._mounted.kind or 'invoke'} {self._name} {self._op}".rstrip()

    def attributes(self) -> dict[str, Scalar | None]:
        """Give the attributes of the span; ``None`` and "" are none."""
        told: dict[str, Scalar | None] = {
            words.OPERATION: self.operation_name,
            self.operation.subject: self.subject,
            words.MODULE: self._event.module,
            words.OP: self._op,
            words.KIND: self._mounted.kind,
        }
        if self.operation.name == "invoke_agent":
            told[words.AGENT_VERSION] = self._mounted.version
        if self._mounted.kind == "tool":
            told[words.TOOL_TYPE] = "extension"  # it runs on the side of the agent
        if self._mounted.transport == "mcp":
            told[words.MCP_METHOD] = words.TOOLS_CALL
        result = self._members("result")
        told |= {words.MODEL: self._model, words.RESPONSE_MODEL: text_of(result.get("model")), **_tokens(result)}
        pairs = (("args", self.operation.arguments), ("result", self.operation.result)) if self._content else ()
        return told | {name: content_of(self._data[key]) for key, name in pairs if key in self._data}

    def _members(self, name: str) -> dict[str, msgspec.Raw]:
        """Give the members of arguments or of a result, of which only those of a provider have a meaning."""
        return members_of(self._data.get(name)) if self._is_provider else {}


def _tokens(result: dict[str, msgspec.Raw]) -> dict[str, int]:
    """Give the tokens that a provider counted, by the names of the conventions."""
    usage = members_of(result.get("usage"))
    found = {name: [scalar_of(usage.get(key)) for key in keys] for name, keys in words.USAGE.items()}
    counts = {name: [n for n in each if type(n) is int and n >= 0] for name, each in found.items()}
    return {name: each[0] for name, each in counts.items() if each}
