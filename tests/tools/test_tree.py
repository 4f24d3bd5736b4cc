"""Trees of requests, built from lines of a log and printed."""

import io
import json
import re

import pytest
from rich.console import Console

from amplifier_tools import _spans
from amplifier_tools._entry import read_entry
from amplifier_tools._spans import Spans
from amplifier_tools._tree import TreePrinter

T0 = 1_800_000_000.0


def event(seq, name="module:invoke", *, span=None, parent=None, at=None, kernel="aaaaaaaa", **more):
    """Write the line of one event."""
    ids = {"span_id": span, "parent_span_id": parent, "session_id": "ses_1"}
    at = seq if at is None else at
    envelope = {"id": f"evt_{seq:024}{kernel}", "ts": T0 + at, "event": name, "component": "kernel", "seq": seq}
    return json.dumps({**envelope, **{key: value for key, value in ids.items() if value}, **more}).encode()


def invoke(seq, span, parent=None, took=500.0, **more):
    given = {"module": f"/mnt/tools/{span}", "status": "ok", "data": {"op": "go", "args": {}}}
    return event(seq, span=span, parent=parent, duration_ms=took, **(given | more))


def shown(*lines, wanted=None, below_max=_spans.BELOW_MAX):
    """Print the trees of these lines, without the times."""
    out = io.StringIO()
    printer, spans = TreePrinter(Console(file=out)), Spans(wanted, below_max)
    for line in lines:
        entry = read_entry(line)
        assert entry is not None
        for node in spans.add(entry):
            printer.print(node)
    for node in spans.finish():
        printer.print(node)
    printer.flush()
    return [line if line.startswith("──") else line[23:] for line in out.getvalue().splitlines()]


def test_times_are_those_since_the_first_event_and_three_digits_long():
    out = io.StringIO()
    printer, spans = TreePrinter(Console(file=out)), Spans()
    for seq, took in enumerate((0.0421, 12.34, 999.4, 59_900.0, 61_500.0)):
        entry = read_entry(invoke(seq + 100, "a", took=took))
        assert entry is not None
        for node in spans.add(entry):
            printer.print(node)
    printer.flush()
    head, *rows = out.getvalue().splitlines()
    assert head == "── kernel aaaaaaaa, session ses_1, 2027-01-15 08:01:39 UTC"
    assert [row[:22] for row in rows] == [
        "    0.000 s   0.04 ms ",
        "    0.988 s   12.3 ms ",
        "    1.001 s    999 ms ",
        "  -56.900 s    59.9 s ",
        "  -57.500 s  1:01 min ",
    ]


def test_a_tree_has_what_happened_in_each_span_in_the_order_of_its_begin():
    lines = (
        event(
            1, "policy:decision", span="b", parent="a", data={"decision": "allow", "scope": "session", "reason": "yes"}
        ),
        invoke(2, "c", "a", took=10.0),
        invoke(3, "b", "a", took=2500.0, data={"op": "go", "args": {"n": 1}, "result": [1]}),
        event(4, "context:get", span="a", data={"keys": 1}),
        invoke(5, "a", took=4500.0),
    )
    assert shown(*lines)[1:] == [
        "✓ /mnt/tools/a go {}",
        '├─✓ /mnt/tools/b go {"n": 1} → [1]',
        "│ └─· policy: allow for the session: yes",
        "├─✓ /mnt/tools/c go {}",
        '└─· context:get {"keys": 1}',
    ]


def test_an_error_has_its_details_and_the_end_of_stderr():
    details = {"exit_code": 1, "module": "/mnt/tools/b", "stderr": "".join(f"  line {n}\n" for n in range(30))}
    error = {"code": "unreachable", "message": "it\nended", "details": details | {f"d{n}": n for n in range(20)}}
    lines = shown(invoke(1, "b", "a", status="error", error=error), invoke(2, "a"))
    assert lines[1:6] == [
        "✓ /mnt/tools/a go {}",
        "└─✗ /mnt/tools/b go {}",
        "      unreachable: it\\nended",
        "      exit_code: 1",
        "      d0: 0",
    ]
    assert lines[-21:-19] == ["      stderr:", "          line 10"]
    assert lines[-1] == "          line 29"
    assert "d14: 14" in lines[-22]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (5, "5"),
        ({"code": 7, "message": None, "details": []}, '{"code": 7, "message": null, "details": []}'),
        ({"code": "x", "message": ["y"], "details": {"stderr": 5, "a": "\x1b"}}, 'x: ["y"]'),
        ({"code": "x", "message": "y", "details": {"a": "z" * 300_000}}, "x: y"),
    ],
)
def test_an_error_of_another_form_is_shown_as_far_as_it_goes(error, said):
    lines = shown(invoke(1, "a", status="error", error=error))
    assert lines[2] == f"    {said}"
    assert "\x1b" not in "".join(lines)


def test_a_failure_without_an_error_is_one():
    assert shown(event(1, "policy:decision", status="error", data={"decision": "deny", "action": "emit"}))[1:] == [
        "✗ policy: deny of emit"
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"op": 5, "args": "x" * 10_000}, f'm 5 "{"x" * 70}…'),
        ("text", "module:invoke m"),
        ({"op": "\x1b[31m\u202e\n", "args": {"\x9b": 1}}, 'm \\x1b[31m\\u202e {"\\x9b": 1}'),
    ],
)
def test_foreign_text_is_cut_and_escaped(data, said):
    line = invoke(1, "a", module="m", data=data).replace(b"\\u009b", "\x9b".encode())
    assert shown(line)[1] == f"✓ {said}"


def test_other_events_have_their_data_and_their_author():
    lines = [
        event(1, "session:start", data={"plan": {}}),
        event(2, "artifact:write", component="/mnt/tools/a", module=None, data={}),
        event(3, "mount:add", module="/mnt/tools/a", data={"kind": "tool", "unenforced": ["net:connect:*"]}),
        event(4, "policy:decision", data={"decision": "allow", "trusted": True, "unenforced": ["x-a:b"]}),
    ]
    assert shown(*lines)[1:] == [
        '· session:start {"plan": {}}',
        "· artifact:write /mnt/tools/a {}",
        '· mount /mnt/tools/a (tool), unenforced: ["net:connect:*"]',
        '· policy: allow, trusted, unenforced: ["x-a:b"]',
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"id":"evt_1","ts":1.0,"event":"a:b"}',
        event(1)[:-1],
        event(1, at=1e300),
        invoke(1, "a", took=-1.0),
        event(1, "a" * 2000),
        event(1, data=None).replace(b"null", b"[" * 100_000 + b"]" * 100_000),
        event(1).replace(b"kernel", b"\xff\xfe"),
    ],
)
def test_what_is_no_event_is_told_apart(line):
    assert read_entry(line) is None


def test_spans_without_an_end_are_shown_as_far_as_they_go_each_below_its_own():
    lines = [
        event(1, "policy:decision", span="a", data={"decision": "allow"}),
        event(2, "policy:decision", span="b", parent="a", data={"decision": "allow"}),
        invoke(3, "c", "b"),
        event(4, "context:get", span="x", parent="y"),
        event(5, "context:get", span="y", parent="x"),
        event(6, "context:get", span="z", parent="z"),
    ]
    assert shown(*lines)[1:] == [
        "… span a: its end is not here",
        "├─· policy: allow",
        "└─… span b: its end is not here",
        "  ├─· policy: allow",
        "  └─✓ /mnt/tools/c go {}",
        "… span x: its end is not here",
        "├─· context:get",
        "└─… span y: its end is not here",
        "  └─· context:get",
        "… span z: its end is not here",
        "└─· context:get",
    ]


def test_a_time_a_little_before_the_first_event_is_zero():
    out = io.StringIO()
    printer = TreePrinter(Console(file=out))
    for line in (event(1, "kernel:start"), event(2, "kernel:end", duration_ms=1000.002)):
        entry = read_entry(line)
        assert entry is not None
        for node in Spans().add(entry):
            printer.print(node)
    printer.flush()
    assert [line[:11] for line in out.getvalue().splitlines()[1:]] == ["    0.000 s"] * 2


def test_a_call_in_flight_when_the_log_ends_is_shown_with_its_op_and_arguments():
    data = {"op": "go", "args": {"n": 1}}
    lines = [
        event(1, "module:pre_invoke", span="a", module="/mnt/tools/a", data=data),
        event(2, "policy:decision", span="b", parent="a", data={"decision": "allow"}),
        event(3, "module:pre_invoke", span="b", parent="a", module="/mnt/tools/b", data=data),
        event(4, "module:pre_invoke", span="c", parent="b", module="/mnt/tools/c", data=data),
        invoke(5, "c", "b"),
        event(6, "module:pre_invoke", data=data),
    ]
    in_flight = [
        '… /mnt/tools/a go {"n": 1}, in flight: its end is not here',
        '└─… /mnt/tools/b go {"n": 1}, in flight: its end is not here',
    ]
    assert shown(*lines)[1:] == [
        '· ? go {"n": 1}',
        *in_flight,
        "  ├─· policy: allow",
        "  └─✓ /mnt/tools/c go {}",
    ]
    assert shown(*lines, wanted=lambda entry: entry.module == "/mnt/tools/b")[1:] == in_flight
    assert shown(*lines[:3], invoke(4, "b", "a"), invoke(5, "a"))[1:] == [
        "✓ /mnt/tools/a go {}",
        "└─✓ /mnt/tools/b go {}",
        "  └─· policy: allow",
    ]


def test_the_spans_of_an_embedder_have_their_names():
    def span(seq, name, data=None, **more):
        return event(seq, "session:span", span=name, status="ok", duration_ms=500.0, data=data, **more)

    step = {"name": "agent.\x1bstep", "goal": "x" * 200, "traceparent": "00-1-2-01"}
    assert shown(
        invoke(1, "b", "a"),
        span(2, "a", {"name": "plan"}, parent="c"),
        span(3, "c", step),
        span(4, "d"),
        span(5, "e", {"name": "big", "x": "x" * 20_000}),
        span(6, "f", {"name": 5}),
        span(7, "g", []),
    )[1:] == [
        'agent.\\x1bstep {"goal":"xxx'.join(["✓ ", "x" * 107 + "…"]),
        "└─✓ plan",
        "  └─✓ /mnt/tools/b go {}",
        "✓ session:span",
        "✓ big",
        "✓ 5",
        "✓ session:span",
    ]


@pytest.mark.parametrize("name", ["module:invoke", "session:span"])
def test_a_span_in_the_trace_of_a_caller_is_a_root(name):
    data = {"op": "go", "args": {}, "name": "go", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    ids = {"span": "a", "parent": "2" * 16, "module": "/mnt/tools/a"}
    decision = event(1, "policy:decision", **ids, data={"decision": "allow"})
    begun = event(2, "module:pre_invoke", **ids, data=data)
    spans = Spans()
    entries = [read_entry(line) for line in (decision, begun, event(3, name, **ids, duration_ms=1.0, data=data))]
    (root,) = (node for entry in entries if entry for node in spans.add(entry))
    assert (root.span, len(root.below)) == ("a", 1)
    assert list(spans.finish()) == []
    assert shown(begun)[1:] == ["… /mnt/tools/a go {}, in flight: its end is not here"]


def test_the_hooks_of_a_decision_are_shown_with_their_times():
    hooks = [
        {"hook": "/mnt/hooks/policy", "decision": "abstain", "reason": None, "duration_ms": 1.25},
        {"hook": "no time", "decision": "abstain"},
        {"hook": "Per\nson", "decision": "allow", "duration_ms": 2310.0},
    ]
    data = {"decision": "allow", "reason": "a person said yes", "hooks": hooks}
    decided = event(1, "policy:decision", span="a", duration_ms=2311.5, data=data)
    (line,) = (line for line in shown(decided, invoke(2, "a"))[1:] if "policy" in line)
    assert line == "└─· policy: allow: a person said yes (/mnt/hooks/policy 1.25 ms, Per\\nson 2.31 s)"
    for odd in ([5], {}, [{"hook": "x", "duration_ms": -1}], [{"hook": "x" * 300_000, "duration_ms": 1}]):
        decided = event(1, "policy:decision", span="a", data={"decision": "allow", "hooks": odd})
        assert shown(decided, invoke(2, "a"))[-1] == "└─· policy: allow"
    decided = event(1, "policy:decision", span="a", data={"decision": "allow", "hooks": hooks[:1] * 1000})
    assert shown(decided, invoke(2, "a"))[-1].count("/mnt/hooks/policy") == 16


def test_the_begin_and_the_end_of_a_kernel_are_shown():
    versions = {"amplifier-kernel": "0.1.0", "python": "3.13.1"}
    data = {"kernel": "aaaaaaaa", "pid": 42, "protocol": 1, "versions": versions, "platform": "linux"}
    assert shown(
        event(1, "kernel:start", session_id=None, data=data),
        event(2, "kernel:end", session_id=None, status="ok", duration_ms=10.0, data={"lost": 3}),
    )[1:] == [
        '· kernel:start pid 42, protocol 1, {"amplifier-kernel": "0.1.0", "python": "3.13.1"}, linux',
        '· kernel:end {"lost": 3}',
    ]


def test_what_was_replayed_of_a_run_that_goes_on_is_told():
    data = {"replayed": 2, "pid": 43}
    assert shown(
        event(1, "kernel:start", session_id=None, data={"pid": 42}),
        event(2, "kernel:resume", session_id=None, duration_ms=1.0, data=data),
        event(3, "kernel:fork", session_id=None, duration_ms=1.0, data={**data, "log": "run.jsonl"}),
    )[2:] == [
        "· kernel:resume replayed: 2 events, pid 43",
        "· kernel:fork replayed: 2 events of run.jsonl, pid 43",
    ]


def test_kernels_in_one_log_are_told_apart():
    lines = [invoke(1, "a"), invoke(1, "a", kernel="bbbbbbbb", session_id=None), invoke(2, "b", "a")]
    heads = [line for line in shown(*lines) if line.startswith("──")]
    assert [re.split("[ ,]+", head)[2:4] for head in heads] == [
        ["aaaaaaaa", "session"],
        ["bbbbbbbb", "2027-01-15"],
        ["aaaaaaaa", "session"],
    ]


def test_only_so_many_below_a_span_are_kept_and_the_others_counted():
    bad = {"status": "error", "error": {"code": "x", "message": "y"}}
    lines = [invoke(n, f"s{n}", "a", **(bad if n % 2 else {})) for n in range(9)]
    assert [line[:18] for line in shown(*lines, invoke(10, "a"), below_max=2)[1:]] == [
        "✓ /mnt/tools/a go {}"[:18],
        "├─✓ /mnt/tools/s0 ",
        "├─✗ /mnt/tools/s1 ",
        "│     x: y",
        "├─✗ /mnt/tools/s3 ",
        "│     x: y",
        "├─✗ /mnt/tools/s5 ",
        "│     x: y",
        "└─… 5 more, 1 of t",
    ]
    assert (
        shown(invoke(1, "b", "a"), invoke(2, "c", "a"), invoke(3, "d", "a"), invoke(4, "a"), below_max=2)[-1]
        == "└─… 1 more"
    )


def test_spans_inside_each_other_are_kept_to_a_depth():
    lines = [invoke(n, f"s{n}", f"s{n + 1}") for n in range(200)]
    found = shown(*lines, invoke(200, "s200"))
    assert max(map(len, found)) < 200
    assert found[-1].endswith("└─… 1 more")
    assert len(found) < 200


def test_what_has_waited_longest_is_shown_without_its_end_when_too_much_waits(monkeypatch):
    monkeypatch.setattr(_spans, "HELD_MAX", 6)
    lines = [invoke(1, "b", "a"), *(invoke(n, f"s{n}", "r") for n in range(2, 6)), invoke(7, "a"), invoke(8, "r")]
    found = shown(*lines)
    assert found[1:4] == ["… span a: its end is not here", "└─✓ /mnt/tools/b go {}", "✓ /mnt/tools/a go {}"]
    assert len(found) == 9


def failed(entry):
    return entry.failed


def test_what_is_not_wanted_is_left_out_but_for_the_spans_above_what_is():
    deny = {"status": "error", "data": {"decision": "deny"}}
    lines = [
        event(1, "policy:decision", span="c", parent="b", **deny),
        event(2, "context:get", span="b", parent="a"),
        invoke(3, "c", "b"),
        invoke(4, "b", "a"),
        invoke(5, "d", "a"),
        invoke(6, "a"),
        invoke(7, "e"),
        event(8, "context:get", span="f"),
        event(9, "policy:decision", span="g", parent="f", **deny),
        event(10, "context:get"),
        event(11, "hook:error", status="error"),
    ]
    assert shown(*lines, wanted=failed)[1:] == [
        "✓ /mnt/tools/a go {}",
        "└─✓ /mnt/tools/b go {}",
        "  └─✓ /mnt/tools/c go {}",
        "    └─✗ policy: deny",
        "✗ hook:error",
        "… span f: its end is not here",
        "└─… span g: its end is not here",
        "  └─✗ policy: deny",
    ]


def test_all_that_happened_in_a_span_that_is_wanted_is_shown():
    bad = {"status": "error", "error": {"code": "x", "message": "y"}}
    lines = [event(1, "policy:decision", span="a", data={"decision": "allow"}), invoke(2, "a", **bad)]
    assert shown(*lines, wanted=failed)[1:] == ["✗ /mnt/tools/a go {}", "│   x: y", "└─· policy: allow"]
    assert shown(lines[0], wanted=failed) == []
    allow = event(1, "policy:decision", span="a", data={"decision": "allow"})
    assert shown(allow, invoke(2, "a", **bad), wanted=lambda entry: not entry.failed) == []
    assert shown(event(1, "context:get", span="b", parent="a"), event(2, "x:y", span="a"), wanted=failed) == []


def test_a_terminal_has_colours_and_no_line_wider_than_it_is():
    out = io.StringIO()
    printer, spans = TreePrinter(Console(file=out, force_terminal=True, width=60)), Spans()
    entry = read_entry(invoke(1, "a", data={"op": "[bold]go", "args": {"text": "x" * 100}}))
    assert entry is not None
    for node in spans.add(entry):
        printer.print(node)
    printer.flush()
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert text != out.getvalue()
    assert "✓ /mnt/tools/a [bold]go" in text
    assert max(map(len, text.splitlines())) == 60
