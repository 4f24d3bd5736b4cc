"""What a kernel does, at a collector: one request is one tree, in the words of the conventions."""

import contextlib
import os
import platform
import re
import sys
from importlib.metadata import version

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.otel_sink.conftest import plain

from amplifier_core import Kernel, KernelError, ModuleDescriptor, Plan

ECHO, CALLER = "/mnt/tools/echo", "/mnt/orchestrators/caller"
CALL = {"name": "invoke", "args": {"path": ECHO, "op": "echo", "args": {"secret": "s3cret"}}}


@pytest.fixture
async def kernel(log, options):
    @contextlib.asynccontextmanager
    async def opened(**more):
        sinks = [{"type": "otel", **options(**more)}]
        async with Kernel(event_log=log, isolation=False, sinks=sinks) as kernel:
            session = await kernel.session.create(Plan(goal="test", inputs={}))
            await session.register_hook("policy:request", allow)
            yield session

    return opened


async def allow(event):
    return {"decision": "allow", "reason": "it is a test"}


async def test_a_request_is_one_tree_with_the_ids_of_the_log(kernel, module, collector, events):
    async with kernel() as session:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        caller = module("caller.py", kind="orchestrator", capabilities=[f"sys:invoke:{ECHO}"])
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        await session.invoke(CALLER, "call", {"syscalls": [CALL, CALL]})
    assert collector.tree() == {
        f"mount {ECHO}": {},
        f"mount {CALLER}": {},
        "invoke_agent caller": {"execute_tool echo.echo": {}},  # the two have one name
    }
    told = {event["span_id"]: event for event in events() if event.get("duration_ms") is not None}
    assert len(told) == len(collector.spans) == 5
    for span in collector.spans:
        event = told[span.span_id.hex()]
        assert span.trace_id.hex() == event["request_id"]
        assert span.parent_span_id.hex() == event.get("parent_span_id", "")
        assert abs(span.end_time_unix_nano - event["ts"] * 1e9) < 2000
        took = span.end_time_unix_nano - span.start_time_unix_nano
        assert abs(took - event["duration_ms"] * 1e6) < 2000
        assert plain(span.attributes)["gen_ai.conversation.id"] == session.session_id
        assert span.status.code == Status.STATUS_CODE_UNSET
        decisions = [plain(each.attributes) for each in span.events if each.name == "policy:decision"]
        assert [each["amplifier.reason"] for each in decisions] == ["it is a test"]


async def test_spans_of_the_embedder_are_in_the_tree_and_continue_its_trace(kernel, module, collector):
    header = f"00-{'a' * 32}-{'b' * 16}-01"
    async with kernel() as session:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        with session.span("serve", traceparent=header), session.span("agent.step", data={"secret": "s3cret"}) as step:
            await session.invoke(ECHO, "echo", {})
            session.emit("agent:thought", {"text": "hm"})
        with pytest.raises(ValueError, match="no idea"), session.span("lost"):
            raise ValueError("no idea")
    assert collector.tree() == {
        f"mount {ECHO}": {},
        "serve": {"agent.step": {"execute_tool echo.echo": {}}},
        "lost": {},
    }
    serve, lost = collector.span("serve"), collector.span("lost")
    assert (serve.trace_id.hex(), serve.parent_span_id.hex(), serve.flags) == ("a" * 32, "b" * 16, 0x300)
    assert serve.kind == Span.SPAN_KIND_INTERNAL
    assert collector.span("agent.step").span_id.hex() == step.span_id
    assert [event.name for event in collector.span("agent.step").events] == ["agent:thought"]
    assert (lost.status.code, plain(lost.attributes)["error.type"]) == (Status.STATUS_CODE_ERROR, "internal")
    assert {labels["amplifier.name"] for labels, _ in collector.points["amplifier.span.duration"]} == {
        "serve",
        "agent.step",
        "lost",
    }
    assert b"s3cret" not in b"".join(request.SerializeToString() for request in collector.traces)


async def test_each_kind_has_its_operation(kernel, module, collector):
    asked = {"model": "m-1", "usage": {"prompt_tokens": 7, "output_tokens": 3}}
    async with kernel() as session:
        kinds = {"tools": "tool", "agents": "agent", "providers": "provider", "context": "context", "hooks": "hook"}
        for place, kind in kinds.items():
            await session.mount(f"/mnt/{place}", module("echo.py", name=kind, kind=kind, version="0.1.0"), trusted=True)
            await session.invoke(f"/mnt/{place}/{kind}", "echo", asked)
        await session.invoke("/mnt/providers/provider", "echo", {})
    for kind, name, span_kind, expected in (
        ("tool", "execute_tool tool.echo", Span.SPAN_KIND_INTERNAL, {"gen_ai.tool.name": "tool.echo"}),
        ("agent", "invoke_agent agent", Span.SPAN_KIND_INTERNAL, {"gen_ai.agent.version": "0.1.0"}),
        ("provider", "chat m-1", Span.SPAN_KIND_CLIENT, {"gen_ai.response.model": "m-1"}),
        ("provider", "chat", Span.SPAN_KIND_CLIENT, {"gen_ai.provider.name": "provider"}),
        ("context", "context context echo", Span.SPAN_KIND_INTERNAL, {}),
        ("hook", "hook hook echo", Span.SPAN_KIND_INTERNAL, {}),
    ):
        span = collector.span(name)
        told = plain(span.attributes)
        assert span.kind == span_kind
        assert told.items() >= ({"amplifier.op": "echo", "amplifier.module.kind": kind} | expected).items()
        assert told.get("gen_ai.operation.name", "") == (name.split()[0] if "_" in name or "chat" in name else "")
    told = plain(collector.span("chat m-1").attributes)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 3)
    points = collector.points
    usage = {labels["gen_ai.token.type"]: point.sum for labels, point in points["gen_ai.client.token.usage"]}
    assert usage == {"input": 7, "output": 3}
    assert len(points["gen_ai.client.operation.duration"]) == 2
    [(labels, point)] = points["gen_ai.execute_tool.duration"]
    own = {"amplifier.op": "echo", "amplifier.module.kind": "tool"}
    assert labels == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "tool.echo"} | own
    assert (point.count, sum(point.bucket_counts)) == (1, 1)
    assert 0 < point.min == point.max == point.sum < 60
    assert sum(point.count for _, point in points["amplifier.mount.duration"]) == 5
    assert {labels["amplifier.decision"] for labels, _ in points["amplifier.policy.decisions"]} == {"allow"}


async def test_an_error_is_the_status_and_its_code_the_type(kernel, module, collector):
    async with kernel() as session:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        with pytest.raises(KernelError):
            await session.invoke(ECHO, "fail", {"code": "teapot", "message": "short and stout"})
        with pytest.raises(KernelError):
            await session.mount("/mnt/tools", module("missing.py"), trusted=True)
        with pytest.raises(KernelError):
            await session.invoke("/mnt/tools/nobody", "x", {})
    failed = {span.name: (plain(span.attributes)["error.type"], span.status) for span in collector.spans[1:]}
    assert all(status.code == Status.STATUS_CODE_ERROR for _, status in failed.values())
    assert {name: code for name, (code, _) in failed.items()} == {
        "execute_tool echo.fail": "teapot",
        "mount /mnt/tools/missing": "unreachable",
        "invoke nobody x": "bad_request",
    }
    assert failed["execute_tool echo.fail"][1].message.endswith("short and stout")
    [(labels, _)] = collector.points["gen_ai.execute_tool.duration"]
    assert labels["error.type"] == "teapot"


@pytest.mark.parametrize("content", [False, True])
async def test_arguments_and_results_are_told_only_if_asked_for(kernel, module, collector, content):
    async with kernel(content=content) as session:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        caller = module(
            "caller.py", kind="orchestrator", capabilities=[f"sys:invoke:{ECHO}", "sys:context.set_fragment"]
        )
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        kept = {"name": "context.set_fragment", "args": {"key": "k", "value": "s3cret"}}
        await session.invoke(CALLER, "call", {"syscalls": [CALL, kept]})
    sent = b"".join(request.SerializeToString() for request in collector.traces)
    assert (b"s3cret" in sent) is content
    told = plain(collector.span("execute_tool echo.echo").attributes)
    named = {name: told[name] for name in told if name.startswith("gen_ai.tool.call")}
    both = dict.fromkeys(("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"), '{"secret":"s3cret"}')
    assert named == (both if content else {})
    [event] = [each for each in collector.span("invoke_agent caller").events if each.name == "context:set"]
    assert plain(event.attributes)["amplifier.key"] == "k"


async def test_messages_say_who_sends_them_and_in_which_words(kernel, module, collector, events):
    resource = {"deployment.environment.name": "test", "n": 1, "f": 0.5, "b": True}
    async with kernel(service="shop", resource=resource) as session:
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
    for [of] in [request.resource_spans for request in collector.traces] + [
        request.resource_metrics for request in collector.metrics
    ]:
        told = plain(of.resource.attributes)
        assert told.items() >= ({"service.name": "shop"} | resource).items()
        assert told["service.instance.id"] == events()[0]["id"][-8:]
        assert (told["process.pid"], told["process.runtime.version"]) == (os.getpid(), platform.python_version())
        assert told["os.description"] == sys.platform and told["amplifier.kernel.version"] == version(
            "amplifier-kernel"
        )
        [scope] = of.scope_spans if hasattr(of, "scope_spans") else of.scope_metrics
        assert scope.scope.name == "amplifier-sink-otel"
        assert re.fullmatch(r"https://opentelemetry\.io/schemas/gen-ai/0\.1\.0", scope.schema_url)


async def test_a_tool_of_a_server_of_mcp_has_its_words_too(kernel, collector):
    server = {"type": "mcp", "command": [sys.executable, "-m", "mcp_server_time", "--local-timezone=Etc/UTC"]}
    async with kernel() as session:
        described = {"name": "time", "kind": "tool", "transport": server, "capabilities": []}
        await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(described), trusted=True)
        await session.invoke("/mnt/tools/time", "get_current_time", {"timezone": "Etc/UTC"})
    told = plain(collector.span("execute_tool time.get_current_time").attributes)
    assert told["mcp.method.name"] == "tools/call"
    [(labels, point)] = collector.points["mcp.client.operation.duration"]
    assert labels == {"mcp.method.name": "tools/call", "gen_ai.tool.name": "time.get_current_time"}
    assert point.count == 1
