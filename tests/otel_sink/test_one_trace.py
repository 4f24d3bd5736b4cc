"""One trace through an embedder, an orchestrator, an HTTP module and a server of MCP: each sends its own spans."""

import sys
from pathlib import Path

import pytest
from opentelemetry import propagate
from opentelemetry.trace import set_span_in_context
from tests.http.conftest import program
from tests.modules.traced import provider
from tests.otel_sink.conftest import plain

from amplifier_core import Kernel, Plan

__all__ = ["program"]  # a fixture
pytestmark = pytest.mark.newest

MODULES = Path(__file__).resolve().parents[1] / "modules"


def described(name, kind, transport, capabilities=()):
    return {"name": name, "kind": kind, "transport": transport, "capabilities": list(capabilities)}


@pytest.fixture
async def session(options, collector, program, log):
    def command(file):
        return [sys.executable, str(MODULES / file), collector.endpoint]

    sink = {"type": "otel", **options(service="kernel", required=True)}
    async with Kernel(event_log=log, isolation=False, sinks=[sink]) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))

        async def allow(event):
            return {"decision": "allow"}

        await session.register_hook("policy:request", allow)
        planner = {"type": "stdio", "command": command("traced_planner.py")}
        wanted = ["sys:invoke:/mnt/tools/*"]
        await session.mount("/mnt/orchestrators", described("planner", "orchestrator", planner, wanted), trusted=True)
        url = {"type": "http", "url": program(*command("traced_http.py"))}
        await session.mount("/mnt/tools", described("echo", "tool", url))
        sums = {"type": "mcp", "command": command("traced_mcp.py")}
        await session.mount("/mnt/tools", described("sums", "tool", sums), trusted=True)
        yield session
        await session.end()


async def test_four_parties_share_one_trace(session, collector):
    embedder = provider("embedder", collector.endpoint)
    with embedder.get_tracer("embedder").start_as_current_span("serve") as served:
        headers = {}
        propagate.inject(headers, set_span_in_context(served))
        with session.span("agent.step", traceparent=headers["traceparent"]):
            counted, added = await session.invoke("/mnt/orchestrators/planner", "run", {})
    embedder.shutdown()
    assert counted == {"a": 1} and added["structuredContent"] == {"result": 3}
    names = {"serve", "agent.step", "invoke_agent planner", "plan", "POST /invoke", "tools/call add"}
    wanted = {*names, "execute_tool echo.echo", "execute_tool sums.add"}
    collector.wait_for(lambda: wanted <= {span.name for span in collector.spans})
    trace = served.get_span_context().trace_id.to_bytes(16, "big")
    spans = {span.name: span for span in collector.spans if span.trace_id == trace}
    assert spans.keys() == wanted
    by_id = {span.span_id: span.name for span in spans.values()}
    assert {name: by_id.get(span.parent_span_id) for name, span in spans.items()} == {
        "serve": None,
        "agent.step": "serve",
        "invoke_agent planner": "agent.step",
        "plan": "invoke_agent planner",
        "execute_tool echo.echo": "invoke_agent planner",
        "POST /invoke": "execute_tool echo.echo",
        "execute_tool sums.add": "invoke_agent planner",
        "tools/call add": "execute_tool sums.add",
    }
    assert parties(collector, spans) == {
        "embedder": {"serve"},
        "planner": {"plan"},
        "echo": {"POST /invoke"},
        "sums": {"tools/call add"},
        "kernel": {"agent.step", "invoke_agent planner", "execute_tool echo.echo", "execute_tool sums.add"},
    }


def parties(collector, spans):
    """Give the spans that each party has sent."""
    found = {}
    for request in collector.traces:
        for of in request.resource_spans:
            ours = {span.name for scope in of.scope_spans for span in scope.spans if span == spans.get(span.name)}
            if ours:
                found.setdefault(plain(of.resource.attributes)["service.name"], set()).update(ours)
    return found
