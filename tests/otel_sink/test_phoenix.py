"""Spans in a real viewer, Phoenix: trees, kinds and errors of the agent example and of a live run, by its API.

The session `phoenix` of the noxfile installs it. Where it is not installed, the test is skipped.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from tests.examples.test_agent import folder, installation, python3_has_the_kit, start

from amplifier_core import Kernel, Plan

__all__ = ["folder", "installation", "python3_has_the_kit", "start"]  # fixtures

PHOENIX = os.environ.get("PHOENIX_PROGRAM", "")
pytestmark = [
    pytest.mark.newest,  # the messages are the same on each Python
    pytest.mark.skipif(not PHOENIX, reason="the session `phoenix` installs Phoenix, and says where it is"),
]
ECHO, CALLER, MODEL = "/mnt/tools/echo", "/mnt/orchestrators/caller", "/mnt/providers/echo"
UNKNOWN = ("mount", "context", "hook")  # kinds of the kernel's own, of which a viewer knows nothing
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_ports(count):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory):
    """Start the viewer, which takes half a minute, and give its address and its API."""
    home, (port, other) = tmp_path_factory.mktemp("phoenix"), free_ports(2)
    told = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(other),
        "PHOENIX_WORKING_DIR": str(home),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    with (home / "phoenix.log").open("wb") as log:
        process = subprocess.Popen([PHOENIX, "serve"], env=environment | told, cwd=home, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"

    def get(path):
        with LOCAL.open(endpoint + path) as answer:
            return json.load(answer)

    try:
        until(lambda: get("/v1/projects"))
        yield endpoint, get
    finally:
        process.terminate()
        process.wait()


def spans_of(get, project, count):
    """Wait for so many spans of a project, and give them."""
    path = f"/v1/projects/{project}/spans?limit=100"
    return until(lambda: spans if len(spans := get(path)["data"]) >= count else None)


def tree(spans, parent=None):
    """Give spans as nested names, by their beginning. Those of one name are one."""
    below = sorted((span for span in spans if span["parent_id"] == parent), key=lambda span: span["start_time"])
    return {span["name"]: tree(spans, span["context"]["span_id"]) for span in below}


def until(look, seconds=240):
    """Look again until there is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come")


def test_the_agent_example_is_a_tree(phoenix, start):
    endpoint, get = phoenix
    run = start("--yes")
    assert run.end() == 0
    (log,) = (run.folder / "state" / "amplifier" / "events").iterdir()
    command = [sys.executable, "-m", "amplifier_tools", "trace", "export", "--to", "otlp", "--endpoint", endpoint, log]
    subprocess.run(command, check=True)
    told = {event["span_id"]: event for event in run.events if event["event"] in ("mount:add", "module:invoke")}
    spans = spans_of(get, "default", len(told))
    assert {span["context"]["span_id"] for span in spans} == told.keys()
    for span in spans:
        event = told[span["context"]["span_id"]]
        assert (span["context"]["trace_id"], span["parent_id"]) == (event["request_id"], event.get("parent_span_id"))
        assert span["status_code"] == ("ERROR" if event["status"] == "error" else "UNSET")
    assert tree(spans)["invoke_agent loop"].keys() >= {
        "chat",
        "context compactor compact",
        "execute_tool files.list",
        "execute_tool files.remove",
        "execute_tool grep.search",
        "execute_tool note.write",
    }
    kinds = {span["name"]: span["span_kind"] for span in spans if not span["name"].startswith(UNKNOWN)}
    assert kinds == {
        "invoke_agent loop": "AGENT",
        "chat": "LLM",
        **dict.fromkeys([name for name in kinds if name.startswith("execute_tool")], "TOOL"),
    }
    [failed] = [span for span in spans if span["status_code"] == "ERROR"]
    assert (failed["name"], failed["attributes"]["error.type"]) == ("execute_tool files.remove", "forbidden")


async def test_a_run_is_seen_while_it_happens(phoenix, module):
    endpoint, get = phoenix
    sink = {"type": "otel", "endpoint": endpoint, "required": True, "content": True, "interval": 0.1}
    sink["resource"] = {"openinference.project.name": "live"}
    async with Kernel(event_log=False, isolation=False, sinks=[sink]) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))

        async def allow(event):
            return {"decision": "allow", "reason": "it is a test"}

        await session.register_hook("policy:request", allow)
        wanted = [f"sys:invoke:{ECHO}", f"sys:invoke:{MODEL}"]
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        await session.mount("/mnt/providers", module("echo.py", kind="provider"), trusted=True)
        await session.mount("/mnt/orchestrators", module("caller.py", capabilities=wanted, kind="agent"), trusted=True)
        usage = {"input_tokens": 7, "output_tokens": 3}
        calls = [
            {"path": MODEL, "op": "echo", "args": {"model": "m-1", "usage": usage}},
            {"path": ECHO, "op": "fail", "args": {"code": "teapot", "message": "short and stout"}},
        ]
        with session.span("turn"):
            await session.invoke(CALLER, "call", {"syscalls": [{"name": "invoke", "args": call} for call in calls]})
        spans = await asyncio.to_thread(spans_of, get, "live", 7)
    below = {"chat m-1": {}, "execute_tool echo.fail": {}}
    assert tree(spans) == {
        f"mount {ECHO}": {},
        f"mount {MODEL}": {},
        f"mount {CALLER}": {},
        "turn": {"invoke_agent caller": below},
    }
    found = {span["name"]: span for span in spans}
    failed = found["execute_tool echo.fail"]
    assert "short and stout" in failed["status_message"] and failed["attributes"]["error.type"] == "teapot"
    assert found["chat m-1"]["attributes"]["llm.token_count.prompt"] == 7
    assert {span["attributes"]["session.id"] for span in spans} == {session.session_id}
    assert "policy:decision" in [event["name"] for event in found["turn"]["events"] + found["chat m-1"]["events"]]
