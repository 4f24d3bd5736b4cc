"""The semantic conventions: how what a kernel does is told in OpenTelemetry, in one table.

Owns every name that this sink writes. They are those of GenAI and MCP, version 0.1.0, and "Development": a later
version is a change of this file. Names of our own begin with ``amplifier.``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"

CONVERSATION = "gen_ai.conversation.id"
ERROR_TYPE = "error.type"
OTHER = "_OTHER"
"""What stands for an error whose code is none."""

OPERATION = "gen_ai.operation.name"
EVENT, MODULE, OP, KIND = "amplifier.event", "amplifier.module", "amplifier.op", "amplifier.module.kind"
NAME, DECISION, DATA, COMPONENT = "amplifier.name", "amplifier.decision", "amplifier.data", "amplifier.component"
AGENT_VERSION = "gen_ai.agent.version"
MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
TOKEN_USAGE, TOKEN_TYPE = "gen_ai.client.token.usage", "gen_ai.token.type"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
MCP_METHOD, MCP_DURATION = "mcp.method.name", "mcp.client.operation.duration"
TOOLS_CALL = "tools/call"
TOOL_NAME, TOOL_TYPE = "gen_ai.tool.name", "gen_ai.tool.type"

USAGE: Mapping[str, tuple[str, ...]] = {
    INPUT_TOKENS: ("input_tokens", "prompt_tokens"),
    OUTPUT_TOKENS: ("output_tokens", "completion_tokens"),
}
"""Under which names in ``usage`` of a provider's result its tokens are looked for."""


@attrs.frozen(kw_only=True)
class Operation:
    """How a call of one kind of module is told."""

    name: str
    """The operation of the conventions; "": they have none, and the words are our own."""
    span_kind: SpanKind = SpanKind.INTERNAL
    subject: str = "amplifier.module.name"
    """The attribute that names what is called."""
    arguments: str = "amplifier.arguments"
    result: str = "amplifier.result"


_AGENT = Operation(name="invoke_agent", subject="gen_ai.agent.name")

OPERATIONS: Mapping[str, Operation] = {
    "tool": Operation(
        name="execute_tool",
        subject=TOOL_NAME,
        arguments="gen_ai.tool.call.arguments",
        result="gen_ai.tool.call.result",
    ),
    "agent": _AGENT,
    "orchestrator": _AGENT,
    "provider": Operation(name="chat", span_kind=SpanKind.CLIENT, subject="gen_ai.provider.name"),
}
"""By the kind of the module. Hooks and context modules are not in the conventions."""

CALL = Operation(name="")
"""A call of any other module, also of one whose mount is not in the events."""

PROVIDER_OPS = ("chat", "embeddings", "generate_content", "text_completion")
"""Ops of providers that are operations of the conventions. Any other op is told as ``chat``."""

DURATIONS: Mapping[str, str] = {
    "execute_tool": "gen_ai.execute_tool.duration",
    "invoke_agent": "gen_ai.invoke_agent.duration",
    **dict.fromkeys(PROVIDER_OPS, "gen_ai.client.operation.duration"),
    "module:invoke": "amplifier.invoke.duration",
    "mount:add": "amplifier.mount.duration",
    "session:span": "amplifier.span.duration",
}
"""The metric of the duration of a span, by its operation, or else by its event. All are in seconds."""

LABELS = (
    OPERATION, TOOL_NAME, "gen_ai.agent.name", "gen_ai.provider.name", MODEL, "amplifier.module.name", OP, KIND, NAME,
    ERROR_TYPE,
)  # fmt: skip
"""The attributes of a span that its metrics have too."""

DECISIONS = "amplifier.policy.decisions"
DROPPED = "amplifier.sink.dropped"

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""The bounds of the histograms, as the conventions advise."""

KERNEL_FIELDS: Mapping[str, str] = {
    "pid": "process.pid",
    "platform": "os.description",
    "versions.python": "process.runtime.version",
    "versions.amplifier-kernel": "amplifier.kernel.version",
}
"""Which attribute of the resource says what of ``kernel:start``."""

EVENT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "policy:decision": ("action", "decision", "scope", "reason"),
    "module:pre_invoke": ("op",),
    "module:start": ("pid", "isolation"),
    "module:exit": ("pid", "exit_code", "signal"),
    "module:noise": ("count",),
    "context:get": ("keys",),
    "context:set": ("key",),
    "context:pre_compact": ("fragment",),
    "context:post_compact": ("fragment", "before", "after"),
    "artifact:write": ("path", "bytes"),
    "artifact:read": ("path", "bytes"),
    "hook:error": ("hook", "event"),
    "events:dropped": ("hook", "count"),
}
"""What is told of an event that happened in a span, beside its name. All of its data is content."""
