"""``amplifier-kernel trace export``: what it writes is held against the rules of the trace events."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from amplifier_core import Kernel, Plan

pytestmark = pytest.mark.newest

COMMAND = [sys.executable, "-m", "amplifier_tools", "trace", "export"]
T0 = 1_800_000_000.0


def event(seq, name="x:y", kernel="aaaaaaaa", **more):
    envelope = {"id": f"evt_{seq:024}{kernel}", "ts": T0 + seq, "event": name, "component": "kernel", "seq": seq}
    return json.dumps({**envelope, **more}).encode() + b"\n"


def invoke(seq, span, parent=None, seconds=1.0, **more):
    ids = {"span_id": span, **({"parent_span_id": parent} if parent else {})}
    data = {"op": span, "args": {}}
    return event(seq, "module:invoke", module="/m", duration_ms=seconds * 1000, data=data, **ids, **more)


@pytest.fixture
def export(traced):
    def run(*words):
        command = [*COMMAND, "--to", "perfetto", *map(str, words)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr.decode()

    return run


def read(text):
    """Read the trace events, and check that the slices of each lane are inside each other or apart."""
    events = json.loads(text)["traceEvents"]
    lanes = defaultdict(list)
    for each in events:
        if each["ph"] == "X":
            lanes[each["pid"], each["tid"]].append((each["ts"], each["ts"] + each["dur"], each["name"]))
    for slices in lanes.values():
        open_until = []
        for begin, end, name in sorted(slices, key=lambda each: (each[0], -each[1])):
            while open_until and open_until[-1] <= begin:
                open_until.pop()
            assert not open_until or end <= open_until[-1], name
            open_until.append(end)
    return events


def slices(events):
    found = (each for each in events if each["ph"] == "X")
    return {each["name"]: (each["tid"], each["ts"] / 1e6 - T0, each["dur"] / 1e6) for each in found}


async def test_a_run_is_a_slice_for_each_of_its_spans(export, log, module, tmp_path):
    async def allow(_):
        return {"decision": "allow"}

    async with Kernel(event_log=log) as kernel:
        session = await kernel.session.create(Plan("a run"))
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)
        caller = module("caller.py", kind="orchestrator", capabilities=["sys:invoke"])
        await session.mount("/mnt/orchestrators", caller, trusted=True)
        sleep = {"path": "/mnt/tools/echo", "op": "sleep", "args": {"seconds": 0.05}}
        calls = [{"name": "invoke", "args": sleep}] * 4
        await session.invoke("/mnt/orchestrators/caller", "call", {"syscalls": calls})
    status, out, errors = export(log)
    assert (status, errors) == (0, "")
    events = read(out)
    names = sorted(each["name"] for each in events if each["ph"] == "X")
    assert names == [
        "/mnt/orchestrators/caller call",
        *["/mnt/tools/echo sleep"] * 4,
        "mount /mnt/orchestrators/caller",
        "mount /mnt/tools/echo",
        *["policy: allow"] * 7,
        *["test_a_run_is_a_slice_for_each_of_its_spans.<locals>.allow"] * 7,
    ]
    assert len({each["tid"] for each in events if each["name"] == "/mnt/tools/echo sleep"}) == 4
    assert {"kernel:start", "session:start", "kernel:end"} <= {each["name"] for each in events if each["ph"] == "i"}
    assert export(log, "-o", tmp_path / "run.json") == (0, b"", "")
    assert (tmp_path / "run.json").read_bytes() == out


def test_slices_are_below_their_parent_unless_they_are_at_the_same_time(export, log):
    log.write_bytes(
        invoke(3, "b", "a", 2)
        + invoke(4, "c", "a", 1)
        + invoke(5, "e", "d", 9)
        + invoke(6, "d", "a", 4)
        + event(6, span_id="a", parent_span_id="")
        + invoke(7, "a", None, 7)
        + invoke(8, "f", None, 5)
        + invoke(9, "g", None, 1)
    )
    events = read(export(log)[1])
    found = slices(events)
    assert found["/m a"] == (1, 0, 7)
    assert found["/m b"] == (1, 1, 2)
    assert found["/m c"] == (1, 3, 1)
    assert found["/m d"] == (2, 2, 4)
    assert found["/m e"] == (2, 2, 3)
    assert found["/m f"] == (3, 3, 5)
    assert found["/m g"] == (1, 8, 1)
    (mark,) = (each for each in events if each["ph"] == "i")
    assert (mark["tid"], mark["ts"]) == (1, (T0 + 6) * 1e6)


def test_kernels_are_processes_and_failures_have_their_error(export, log):
    error = {"code": "mine", "message": "\x1b[31mno"}
    log.write_bytes(event(1) + invoke(2, "a", kernel="bbbbbbbb", status="error", error=error) + b"torn\n")
    status, out, errors = export(log)
    assert (status, errors) == (0, "lines that are no events, skipped: 1\n")
    events = read(out)
    assert [each["args"]["name"] for each in events if each["ph"] == "M"] == ["kernel aaaaaaaa", "kernel bbbbbbbb"]
    (failed,) = (each for each in events if each["ph"] == "X")
    assert failed["pid"] == 2
    assert failed["args"] == {"text": "/m a {}", "span": "a", "error": "mine: \\x1b[31mno"}
    assert failed["cname"] == "terrible"


def test_what_is_below_a_span_without_an_end_stands_for_itself(export, log):
    log.write_bytes(invoke(2, "b", "a") + event(3, span_id="a") + invoke(4, "c", "a"))
    assert set(slices(read(export(log)[1]))) == {"/m b", "/m c"}


def test_a_call_in_flight_is_a_slice_without_an_end_and_so_are_those_below_it(export, log):
    def begin(seq, span, parent=None):
        return event(seq, "module:pre_invoke", module="/m", span_id=span, parent_span_id=parent, data={"op": span})

    log.write_bytes(
        begin(1, "a")
        + begin(3, "b", "a")
        + event(4, "policy:decision", span_id="b", parent_span_id="a")
        + invoke(5, "c", "a", 1)
        + invoke(7, "d", None, 1)
    )
    events = read(export(log)[1])
    opened = {each["name"]: (each["tid"], each["ts"] / 1e6 - T0) for each in events if each["ph"] == "B"}
    assert opened == {"/m a": (2, 1), "/m b": (3, 3)}
    assert slices(events) == {"/m c": (2, 4, 1), "/m d": (1, 6, 1)}
    assert [each["tid"] for each in events if each["ph"] == "i"] == [3]


def test_a_decision_of_policy_is_a_slice_and_so_is_each_hook(export, log):
    hooks = [{"hook": "quick", "duration_ms": 500}, {"hook": "Person", "duration_ms": 1500}, {"hook": "none"}]
    decided = {"decision": "allow", "hooks": [*hooks, {"hook": "late", "duration_ms": 9000}]}
    log.write_bytes(event(3, "policy:decision", span_id="a", duration_ms=2000, data=decided) + invoke(5, "a", None, 4))
    found = slices(read(export(log)[1]))
    assert found == {
        "/m a": (1, 1, 4),
        "policy: allow": (1, 1, 2),
        "quick": (1, 1, 0.5),
        "Person": (1, 1.5, 1.5),
    }


def test_more_lanes_than_anybody_looks_at_are_not_made(export, log):
    log.write_bytes(b"".join(invoke(n, f"s{n}", None, n) for n in range(1, 1100)))
    events = json.loads(export(log)[1])["traceEvents"]
    assert len({each["tid"] for each in events if each["ph"] == "X"}) == 1000


def test_more_kernels_than_anybody_looks_at_are_one_process(export, log):
    log.write_bytes(b"".join(event(1, kernel=f"{n:08}") for n in range(1100)))
    events = json.loads(export(log)[1])["traceEvents"]
    assert len({each["pid"] for each in events}) == 1001
    assert len([each for each in events if each["pid"] == 1001]) == 101


def test_nothing_is_lost_of_a_span_with_very_many_below_it(export, log):
    many = 21_000
    log.write_bytes(b"".join(invoke(n, f"s{n}", "a", 0.5) for n in range(many)) + invoke(many, "a", None, many))
    assert len(slices(read(export(log)[1]))) == many + 1


def test_bad_usage_is_told_in_a_line(export, tmp_path):
    status, out, errors = export(tmp_path / "nowhere.jsonl")
    assert (status, out) == (2, b"")
    assert "nowhere.jsonl: cannot be read: No such file or directory" in errors


def test_an_empty_log_is_an_empty_trace(export, log):
    log.touch()
    assert json.loads(export(log)[1]) == {"displayTimeUnit": "ms", "traceEvents": []}


FORMS = [["html"], ["export", "--to", "perfetto"], ["export", "--to", "otlp"]]


def trace(*words):
    command = [sys.executable, "-m", "amplifier_tools", "trace", *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_no_file_of_the_log_is_written_over(traced, log, tmp_path, form):
    log.write_bytes(event(2))
    rotated = log.with_name(f"{log.name}.1")
    rotated.write_bytes(event(1))
    link = tmp_path / "link.json"
    link.symlink_to(log)
    for file in (log, rotated, link):
        expected = f"Error: {file}: expected another file than those of the log"
        assert trace(*form, log, "-o", file) == (2, expected)
    assert (rotated.read_bytes(), log.read_bytes()) == (event(1), event(2))


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_an_output_that_cannot_be_written_is_told_in_a_line(traced, log, tmp_path, form):
    log.write_bytes(event(1))
    nowhere = tmp_path / "nowhere" / "file"
    assert trace(*form, log, "-o", nowhere) == (1, f"Error: {nowhere}: cannot be written: No such file or directory")
    assert trace(*form, log, "-o", tmp_path)[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("form", FORMS[:2], ids=" ".join)
def test_a_full_disk_is_not_taken_for_a_fault_of_the_log(traced, log, form):
    log.write_bytes(event(1))
    assert trace(*form, log, "-o", "/dev/full") == (1, "Error: /dev/full: cannot be written: No space left on device")


def test_an_output_may_be_stdout_by_name(traced, export, log):
    log.write_bytes(invoke(2, "call"))
    assert export(log, "-o", "-") == export(log)


def test_who_reads_no_more_is_no_fault(traced, log):
    log.write_bytes(event(1))
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*COMMAND, "--to", "perfetto", log]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write_end)
    assert b"cannot be" not in done.stderr
