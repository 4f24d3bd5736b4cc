"""Servers that others have written, mounted from descriptor files: what each offers arrives, over both transports."""

import asyncio
import json
import os
import re
import socket
import sys

import pytest
from tests.mcp_transport.conftest import SERVERS

from amplifier_core import BadRequest, Forbidden, Kernel, KernelError, Plan, Timeout, load_descriptor

EVERYTHING = "/mnt/tools/everything"


@pytest.fixture
def from_file(tmp_path):
    """Write a descriptor file and load it."""

    def write(name, transport, capabilities=()):
        file = tmp_path / f"{name}.json"
        descriptor = {"name": name, "kind": "tool", "capabilities": list(capabilities), "transport": transport}
        file.write_text(json.dumps(descriptor), "utf-8")
        return load_descriptor(file)

    return write


@pytest.fixture(params=["stdio", "http"])
async def everything(request, npm_server, from_file, mount, program):
    """Mount server-everything, over one transport or the other."""
    command = npm_server("server-everything")
    if request.param == "http":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program([*command, "streamableHttp"], "listening on port", PORT=str(port))
        await mount(from_file("everything", {"type": "mcp", "url": f"http://127.0.0.1:{port}/mcp"}))
    else:
        await mount(from_file("everything", {"type": "mcp", "command": command}))


async def test_everything(session, everything):
    """One mount for all that a stateful server does: starting Node takes its time."""
    described = await session.describe(EVERYTHING)
    assert {"echo", "get-sum", "resources/list", "prompts/get"} <= described["inputs"].keys()
    assert described["inputs"]["echo"]["description"]
    assert (described["mcp"]["protocol"], described["mcp"]["name"]) == ("2025-11-25", "mcp-servers/everything")

    echoed = await session.invoke(EVERYTHING, "echo", {"message": "ü"})
    assert echoed == {"content": [{"type": "text", "text": "Echo: ü"}]}
    with pytest.raises(BadRequest, match=r"args: 'message' is a required property"):
        await session.invoke(EVERYTHING, "echo", {})

    weather = await session.invoke(EVERYTHING, "get-structured-content", {"location": "Chicago"})
    assert weather["structuredContent"].keys() == {"temperature", "conditions", "humidity"}
    output = described["outputs"]["get-structured-content"]
    assert output["properties"]["structuredContent"]["$id"] == "mcp:output:get-structured-content"
    image = await session.invoke(EVERYTHING, "get-tiny-image", {})
    assert [(block["type"], block.get("mimeType")) for block in image["content"]] == [
        ("text", None),
        ("image", "image/png"),
        ("text", None),
    ]

    listed = (await session.invoke(EVERYTHING, "resources/list", {}))["resources"]
    read = await session.invoke(EVERYTHING, "resources/read", {"uri": listed[0]["uri"]})
    assert read["contents"][0]["text"]
    assert (await session.invoke(EVERYTHING, "resources/templates/list", {}))["resourceTemplates"]
    prompts = [prompt["name"] for prompt in (await session.invoke(EVERYTHING, "prompts/list", {}))["prompts"]]
    assert "simple-prompt" in prompts
    prompt = await session.invoke(EVERYTHING, "prompts/get", {"name": "simple-prompt"})
    assert prompt["messages"][0]["role"] == "user"
    with pytest.raises(KernelError, match="nope"):
        await session.invoke(EVERYTHING, "prompts/get", {"name": "nope"})

    sums = await asyncio.gather(*(session.invoke(EVERYTHING, "get-sum", {"a": n, "b": 1}) for n in range(20)))
    assert [re.findall(r"\d+", each["content"][0]["text"]) for each in sums] == [
        [str(n), "1", str(n + 1)] for n in range(20)
    ]

    steps = session.stream(EVERYTHING, "trigger-long-running-operation", {"duration": 0.2, "steps": 2})
    assert [item async for item in steps] == [{"progress": 1, "total": 2}, {"progress": 2, "total": 2}]
    with pytest.raises(Timeout):
        await session.invoke(EVERYTHING, "trigger-long-running-operation", {"duration": 60, "steps": 2}, timeout=0.3)
    call = session.invoke(EVERYTHING, "trigger-long-running-operation", {"duration": 60, "steps": 2})
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.invoke(EVERYTHING, "echo", {"message": "ü"}) == echoed


async def test_filesystem(session, npm_server, from_file, mount, tmp_path):
    """A server that is told of roots, and touches nothing else."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("Hallo", "utf-8")
    command = [*npm_server("server-filesystem"), str(tmp_path / "nowhere")]
    (tmp_path / "nowhere").mkdir()
    transport = {"type": "mcp", "command": command, "roots": ["data"]}
    files = await mount(from_file("files", transport, ["fs:read:data"]))
    while str(folder) not in str(await session.invoke(files, "list_allowed_directories", {})):
        await asyncio.sleep(0.01)  # it asks for the roots in its own time
    read = await session.invoke(files, "read_text_file", {"path": str(folder / "a.txt")})
    assert read["structuredContent"] == {"content": "Hallo"}
    with pytest.raises(KernelError, match="tool_error: Access denied") as caught:
        await session.invoke(files, "read_text_file", {"path": str(tmp_path / "files.json")})
    assert caught.value.details["content"][0]["type"] == "text"


async def test_a_server_is_isolated_like_any_stdio_module(npm_server, from_file, approve, tmp_path):
    """What its own code would allow, the host does not."""
    (tmp_path / "a.txt").write_text("Hallo", "utf-8")
    transport = {"type": "mcp", "command": [*npm_server("server-filesystem"), str(tmp_path)]}
    descriptor = from_file("files", transport, [f"fs:read:{SERVERS}", f"fs:read:{tmp_path}"])
    async with Kernel(event_log=False) as kernel:
        session = await kernel.session.create(Plan(goal="be confined", inputs={}))
        await session.register_hook("policy:request", approve)
        try:
            files = (await session.mount("/mnt/tools", descriptor))["path"]
        except Forbidden as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no isolation works here: {error}")
        read = await session.invoke(files, "read_text_file", {"path": str(tmp_path / "a.txt")})
        assert read["structuredContent"] == {"content": "Hallo"}
        with pytest.raises(KernelError, match="tool_error: EROFS: read-only file system"):
            await session.invoke(files, "write_file", {"path": str(tmp_path / "b.txt"), "content": "x"})


async def test_memory(session, npm_server, from_file, mount, tmp_path):
    """A server that keeps something between calls."""
    environment = {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}
    memory = await mount(
        from_file("memory", {"type": "mcp", "command": npm_server("server-memory"), "env": environment})
    )
    entity = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
    await session.invoke(memory, "create_entities", {"entities": [entity]})
    graph = await session.invoke(memory, "read_graph", {})
    assert graph["structuredContent"] == {"entities": [entity], "relations": []}


async def test_time(session, from_file, mount):
    """A server of the newest revision, in Python."""
    transport = {"type": "mcp", "command": [sys.executable, "-m", "mcp_server_time", "--local-timezone=Etc/UTC"]}
    clock = await mount(from_file("time", transport))
    described = await session.describe(clock)
    assert described["mcp"]["protocol"] == "2026-07-28"
    told = await session.invoke(clock, "get_current_time", {"timezone": "Asia/Tokyo"})
    assert told["structuredContent"]["timezone"] == "Asia/Tokyo"
    with pytest.raises(KernelError, match="tool_error: .*Nowhere"):
        await session.invoke(clock, "get_current_time", {"timezone": "Nowhere"})


FASTMCP = """
import asyncio, sys
from fastmcp import Context, FastMCP
server = FastMCP("fast")

@server.tool
async def count(to: int, ctx: Context) -> dict[str, int]:
    "Count, and tell how far it is."
    for n in range(to):
        await ctx.report_progress(n + 1, to, f"at {n + 1}")
    return {"counted": to}

@server.tool
async def sleep() -> str:
    await asyncio.sleep(60)

@server.resource("data://answer")
def answer() -> str:
    return "42"

server.run(show_banner=False, **({"transport": "http", "port": int(sys.argv[1])} if len(sys.argv) > 1 else {}))
"""


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_fastmcp(session, from_file, mount, program, tmp_path, transport):
    """A server of the framework that most are written with."""
    (tmp_path / "fast.py").write_text(FASTMCP, "utf-8")
    command = [sys.executable, str(tmp_path / "fast.py")]
    if transport == "http":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program([*command, str(port)], "running on")
        fast = await mount(from_file("fast", {"type": "mcp", "url": f"http://127.0.0.1:{port}/mcp"}))
    else:
        fast = await mount(from_file("fast", {"type": "mcp", "command": command}))
    steps = [item async for item in session.stream(fast, "count", {"to": 3})]
    assert steps == [{"progress": n, "total": 3, "message": f"at {n}"} for n in (1, 2, 3)]
    assert (await session.invoke(fast, "count", {"to": 1}))["structuredContent"] == {"counted": 1}
    assert (await session.invoke(fast, "resources/read", {"uri": "data://answer"}))["contents"][0]["text"] == "42"
    with pytest.raises(Timeout):
        await session.invoke(fast, "sleep", {}, timeout=0.3)
    assert (await session.invoke(fast, "count", {"to": 1}))["structuredContent"] == {"counted": 1}
