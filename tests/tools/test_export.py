"""``amplifier-kernel trace export``: what it writes is held against the rules of the trace events."""

import json
import subprocess
import sys
from collections import defaultdict

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
    ]
    assert len({each["tid"] for each in events if each["name"] == "/mnt/tools/echo sleep"}) == 4
    assert "policy: allow" in {each["name"] for each in events if each["ph"] == "i"}
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
