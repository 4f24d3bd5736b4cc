"""An orchestrator over STDIO with a span of its own, below the invocation: traced_planner.py ENDPOINT."""

import sys
from typing import Any

from opentelemetry import propagate
from traced import tracer

from amplifier_module import Context, Module

module = Module("planner", kind="orchestrator", capabilities=["sys:invoke:/mnt/tools/*"])
TRACER = tracer("planner", sys.argv.pop())


@module.op
async def run(context: Context) -> list[Any]:
    parent = propagate.extract({"traceparent": f"00-{context.request_id}-{context.span_id}-01"})
    with TRACER.start_as_current_span("plan", parent):
        counted = await context.invoke("/mnt/tools/echo", "echo", {"a": 1})
        added = await context.invoke("/mnt/tools/sums", "add", {"a": 1, "b": 2})
    return [counted, added]


module.run()
