"""What the tests of MCP share: servers from the registries, servers that misbehave, and modules made of them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.mcp_transport.servers import PROLOGUE, McpServer
from tests.npm import PROGRAM, installed

from amplifier_core import ModuleDescriptor
from amplifier_transport_mcp import open_transport

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / ".cache" / "mcp-servers"
SCOPE = "@modelcontextprotocol"
PACKAGES = dict.fromkeys(("server-everything", "server-filesystem", "server-memory"), "2026.8.31")


@pytest.fixture(scope="session")
def npm_server():
    """Give the command of a server from the npm registry."""
    installed(SERVERS.name, [f"{SCOPE}/{name}@{version}" for name, version in PACKAGES.items()])
    return lambda name: [PROGRAM, str(SERVERS / "node_modules" / SCOPE / name / "dist" / "index.js")]


@pytest.fixture
def describe():
    """Describe a module with the transport of MCP: ``describe(command)``, ``describe(url)``."""

    def make(server, *, name="m", kind="tool", capabilities=(), transport=(), base=None, **fields):
        key = "url" if isinstance(server, str) else "command"
        mapping = {
            "name": name,
            "kind": kind,
            "capabilities": list(capabilities),
            "transport": {"type": "mcp", key: server, **dict(transport)},
            **fields,
        }
        return ModuleDescriptor.from_mapping(mapping, base=base)

    return make


@pytest.fixture
def script(tmp_path):
    """Write a server: what stands in `code` is done for each call of a tool. Give its command."""

    def write(code, *, before="", loop="requests", name="server"):
        lines = "\n".join("    " + line for line in code.strip().splitlines())
        take = "op, args = request['params']['name'], request['params'].get('arguments')" if loop == "requests" else ""
        text = f"{PROLOGUE}\n{before}\nfor request in {loop}():\n    {take or 'pass'}\n{lines}\n"
        file = tmp_path / f"{name}.py"
        file.write_text(text, "utf-8")
        return [sys.executable, str(file)]

    return write


@pytest.fixture
def mount(session, approve):
    """Mount what is described, allow it everything, and give its path."""
    allowed = []

    async def add(descriptor, **options):
        if not allowed and descriptor.capabilities:
            allowed.append(await session.register_hook("policy:request", approve))
        options.setdefault("trusted", True)
        return (await session.mount("/mnt/tools", descriptor, **options))["path"]

    return add


@pytest.fixture
def approve():
    """Allow everything, as a policy hook."""

    async def decide(_event):
        return {"decision": "allow"}

    return decide


@pytest.fixture
async def serve():
    """Start a server over HTTP for the length of a test: ``await serve(call)``."""
    opened = []

    async def start(call=None, *, tls=None, port=0, **options):
        server = McpServer(call, **options)
        await server.start(port=port, tls=tls)
        opened.append(server)
        return server

    yield start
    for server in opened:
        await server.stop()


@pytest.fixture
def program():
    """Run a server in a process of its own; ``ready`` is what it says when it listens. It is ended with the test."""
    running = []

    def start(command, ready, **environment):
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        assert process.stdout
        assert any(ready in line for line in process.stdout), f"{command} has ended"

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
async def host():
    """What a kernel offers to connections, without one."""
    made = []

    class Host:
        def shared(self, make):
            made.append(make())
            return made[-1]

    yield Host()
    for each in made:
        await each.close()


@pytest.fixture
def open_one(host):
    """Make a connection without a kernel."""

    def make(descriptor, notify=None) -> Any:
        return open_transport(descriptor, notify or (lambda *_: None), host)

    return make
