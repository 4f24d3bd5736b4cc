"""The fixtures of the check: the command, and modules with a flaw."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from amplifier_tools._cli import main

FLAWED = str(Path(__file__).with_name("flawed.py"))
FLAWED_HTTP = str(Path(__file__).with_name("flawed_http.py"))
EXAMPLES = {
    "count": 'count={"text": "a b"}',
    "stream": 'stream={"text": "a b"}',
    "call": 'call={"text": "a"}',
    "fail": "fail={}=out_of_ink",
}
HOOK = 'on_event={"event": {"event": "policy:request"}}'
SLOW = 'slow={"text": "a b"}'


class Checked:
    """One run of the command: its exit status, what it printed, and its report."""

    def __init__(self, done, report):
        self.status = done.exit_code
        self.text = done.stdout
        self.stderr = done.stderr
        self.report = report

    @property
    def ids(self):
        return sorted({finding["id"] for finding in self.report["findings"]})

    def finding(self, name):
        (found,) = (finding for finding in self.report["findings"] if finding["id"] == name)
        return found


@pytest.fixture
def check(tmp_path):
    """Run `amplifier-kernel check` on a descriptor, a file or an object, in this process."""

    def run(descriptor, *words):
        file = descriptor
        if isinstance(descriptor, dict):
            file = tmp_path / "module.json"
            file.write_text(json.dumps(descriptor))
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        done = CliRunner().invoke(main, ["check", str(file), "--json", str(report), *words], catch_exceptions=False)
        return Checked(done, json.loads(report.read_text()) if report.exists() else None)

    return run


def described(transport, **fields):
    told = {"name": "flawed", "version": "1.2.0", "kind": "orchestrator", "capabilities": ["sys:mounts"]}
    return {**told, "transport": transport, "limits": {"message_bytes": 270_000}, **fields}


@pytest.fixture
def over_stdio(check):
    """Check the program with a flaw, over STDIO."""

    def run(flaw, *words, **fields):
        transport = {"type": "stdio", "command": [sys.executable, FLAWED, flaw]}
        return check(described(transport, **fields), "--trusted", *words)

    return run


@pytest.fixture
def over_http(check):
    """Check the program with a flaw, over HTTP."""

    def run(flaw, *words, **fields):
        command = [sys.executable, FLAWED_HTTP, flaw]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout
            port = int(server.stdout.readline())
            return check(described({"type": "http", "url": f"http://127.0.0.1:{port}"}, **fields), *words)

    return run
