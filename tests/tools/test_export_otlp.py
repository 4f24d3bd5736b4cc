"""``amplifier-kernel trace export --to otlp``: what comes to a collector, or into a file, and how it fails."""

import json
import os
import subprocess
import sys

import pytest
from tests.otel_sink.conftest import Collector, collector, plain
from tests.otel_sink.test_delivery import nobody
from tests.tools.test_export import event, invoke

from amplifier_core import Kernel, Plan

__all__ = ["collector"]  # a fixture
pytestmark = pytest.mark.newest

COMMAND = [sys.executable, "-m", "amplifier_tools", "trace", "export", "--to", "otlp"]
TRACE = "5" * 32


@pytest.fixture
def export(traced):
    def run(*words, **environment):
        command = [*COMMAND, *map(str, words)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=os.environ | environment)
        return done.returncode, done.stdout, done.stderr.decode()

    return run


def spans(seqs):
    return b"".join(invoke(n, f"{n + 1:016x}", seconds=0.5, request_id=TRACE) for n in seqs)


async def test_a_run_comes_to_a_collector(export, log, module, collector: Collector):
    async with Kernel(event_log=log, isolation=False) as kernel:
        session = await kernel.session.create(Plan("a run"))
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        with session.span("agent.step", data={"secret": "s3cret"}):
            await session.invoke("/mnt/tools/echo", "echo", {"secret": "s3cret"})
    headers = ["--header", "x-key=a=b", "--header", "x-other="]
    assert export(log, "--endpoint", collector.endpoint, *headers) == (0, b"", "")
    assert collector.tree() == {"mount /mnt/tools/echo": {}, "agent.step": {"execute_tool echo.echo": {}}}
    assert (collector.headers[0]["x-key"], collector.headers[0]["x-other"]) == ("a=b", "")
    [of] = collector.traces[0].resource_spans
    assert plain(of.resource.attributes)["process.pid"] == os.getpid()
    assert b"s3cret" not in collector.traces[0].SerializeToString()
    assert export(log, "--endpoint", collector.endpoint, "--content") == (0, b"", "")
    assert collector.traces[1].SerializeToString().count(b"s3cret") == 3


def test_a_log_is_a_file_of_messages(export, log, tmp_path):
    log.write_bytes(spans(range(1, 300)))
    status, out, errors = export(log)
    assert (status, errors) == (0, "")
    messages = [json.loads(line)["resourceSpans"] for line in out.splitlines()]
    told = [each for [of] in messages for each in of["scopeSpans"][0]["spans"]]
    assert [len(of["scopeSpans"][0]["spans"]) for [of] in messages] == [128, 128, 43]
    assert [each["spanId"] for each in told] == [f"{n + 1:016x}" for n in range(1, 300)]
    assert export(log, "-o", tmp_path / "run.jsonl") == (0, b"", "")
    assert (tmp_path / "run.jsonl").read_bytes() == out


def test_what_is_left_out_is_told(export, log):
    begun = event(2, "x:y", request_id=TRACE, span_id="f" * 16)
    log.write_bytes(spans([1]) + begun + b"torn\n")
    status, out, errors = export(log)
    assert (status, len(out.splitlines())) == (0, 1)
    assert errors == "lines that are no events, skipped: 1\nevents left out, whose span has no end: 1\n"


def test_a_collector_that_takes_nothing_is_one_line_and_a_status(export, log, collector):
    log.write_bytes(spans(range(1, 1000)))
    collector.answer = lambda path, body: (403, {}, b"")
    status, out, errors = export(log, "--endpoint", collector.endpoint)
    assert (status, out, errors) == (1, b"", f"Error: {collector.endpoint}: HTTP status 403\n")
    assert len(collector.paths) == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--endpoint", "ftp://x"], "endpoint: expected http://HOST:PORT"),
        (["--endpoint", "http://x", "--header", "s3cret"], "Invalid value for '--header': expected NAME=VALUE"),
        (["--endpoint", "http://x", "--header", "a b=s3cret"], "headers: expected names of HTTP"),
        (["--header", "a=s3cret"], "--header: goes with --endpoint alone"),
        (["--endpoint", "http://x", "-o", "run.jsonl"], "--endpoint and --output: expected one of them"),
        (["--to", "perfetto", "--endpoint", "http://x"], "--endpoint: goes with --to otlp alone"),
        (["--to", "perfetto", "--content"], "--content: goes with --to otlp alone"),
    ],
)
def test_bad_usage_is_told_in_a_line(export, log, words, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log.write_bytes(spans([1]))
    status, out, errors = export(log, *words)
    assert (status, out) == (2, b"")
    assert errors.splitlines()[-1].startswith(f"Error: {problem}")
    assert "s3cret" not in errors


def test_without_the_sink_it_says_what_to_install(export, log, tmp_path):
    log.write_bytes(spans([1]))
    hide = "import sys, importlib.abc\nclass Hidden(importlib.abc.MetaPathFinder):\n"
    hide += "    def find_spec(self, name, path, target=None):\n"
    hide += "        if name == 'amplifier_sink_otel': raise ModuleNotFoundError(name=name)\n"
    (tmp_path / "sitecustomize.py").write_text(hide + "sys.meta_path.insert(0, Hidden())\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    status, _, errors = export(log, PYTHONPATH=path)
    assert status == 2
    assert errors.splitlines()[-1] == (
        "Error: --to otlp: needs amplifier-sink-otel: pip install 'amplifier-tools[otlp]'"
    )


def test_a_collector_that_is_down_ends_it(export, log):
    where = nobody()
    log.write_bytes(spans([1]))
    status, _, errors = export(log, "--endpoint", where, "--timeout", "0.2")
    assert status == 1
    assert errors.startswith(f"Error: {where}: ") and "refused" in errors and errors.count("\n") == 1
