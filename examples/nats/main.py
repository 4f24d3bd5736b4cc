"""A module that is served by three workers over NATS: calls are spread, and an update fails none.

`python3 noxfile.py -s nats` installs what it needs, a nats-server too, and runs this file. Real workers run on machines
of their own, with TLS and credentials.
"""

import asyncio
import collections
import json
import shutil
import sys
import sysconfig
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from amplifier_core import Kernel, Plan

SUBJECT = "tools.who"
MODULE = """
import os
from amplifier_module import Module

module = Module("who")

@module.op
def ask(n: int) -> dict[str, int]:
    return {"n": n, "pid": os.getpid()}

module.run()
"""


async def start_server(folder: Path) -> tuple[Process, str]:
    """Start a server on a free port, and give its address."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    assert program, "nats-server is not installed"
    options = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
    process = await asyncio.create_subprocess_exec(program, *options, stderr=DEVNULL)
    ports = folder / f"nats-server_{process.pid}.ports"
    for _ in range(1000):  # the server writes it when it listens
        if ports.exists() and ports.read_text():
            break
        await asyncio.sleep(0.01)
    return process, json.loads(ports.read_text())["nats"][0].removeprefix("nats://")


async def start_worker(descriptor: Path, address: str) -> Process:
    """Start a worker, and wait until it serves."""
    options = ["--subject", SUBJECT, "--servers", address, "--no-tls", "--trusted"]
    command = [sys.executable, "-m", "amplifier_transport_nats", str(descriptor), *options]
    process = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    assert process.stderr
    while b"serving" not in (line := await process.stderr.readline()):
        assert line, "the worker did not start"
    return process


async def main() -> None:
    """Serve a module three times, call it, and replace a worker meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "who.py").write_text(MODULE)
        transport = {"type": "stdio", "command": [sys.executable, "who.py"]}
        described = {"name": "who", "kind": "tool", "capabilities": [], "transport": transport}
        (folder / "who.json").write_text(json.dumps(described))
        server, address = await start_server(folder)
        workers = await asyncio.gather(*(start_worker(folder / "who.json", address) for _ in range(3)))
        async with Kernel(event_log=False) as kernel:
            session = await kernel.session.create(Plan(goal="ask who answers", inputs={}))
            there = {"type": "nats", "servers": [address], "subject": SUBJECT, "tls": False}
            await session.mount("/mnt/tools", described | {"transport": there})
            first = await asyncio.gather(*(session.invoke("/mnt/tools/who", "ask", {"n": n}) for n in range(300)))
            print("answers by each of three:", sorted(collections.Counter(each["pid"] for each in first).values()))
            workers.append(await start_worker(folder / "who.json", address))
            workers[0].terminate()
            more = await asyncio.gather(*(session.invoke("/mnt/tools/who", "ask", {"n": n}) for n in range(300)))
            print("answers while one is replaced:", len(more))
        for worker in workers[1:]:
            worker.terminate()
        await asyncio.gather(*(worker.communicate() for worker in workers))
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    asyncio.run(main())
