"""A module of the kit over STDIO, line by line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

MIB = 1 << 20
NOTHING = "expected a value, got nothing"


def error(reply):
    return reply["error"]["code"], reply["error"]["message"]


def test_health_and_describe(process):
    module = process()
    module.send({"id": "r1", "method": "health"}, {"id": 2, "method": "describe", "params": {"more": 1}})
    assert module.read() == {"id": "r1", "ok": True, "result": {"status": "ok"}}
    described = module.read()
    assert described["id"] == 2
    assert described["result"]["name"] == "everything"
    assert described["result"]["inputs"]["count"]["required"] == ["text"]


def test_an_invocation(process):
    assert process().answer("count", {"text": "a ü"}) == {"ok": True, "result": {"words": 2}}


def test_types_are_read_and_written(process):
    args = {"place": {"name": "Rome", "height": 21}, "at": "2026-01-02T00:00:00Z", "deep": True}
    assert process().answer("rich", args)["result"] == {"name": "Rome 2026True", "height": 22.0}


@pytest.mark.parametrize("value", [2**200, -1.5e-300, "\u2028\x7f", [[{}]], {"": None}, True])
def test_json_passes_unchanged(process, value):
    assert process().answer("echo", {"value": value})["result"] == value


@pytest.mark.parametrize(
    ("op", "args", "where", "what"),
    [
        ("count", {}, "args.text", NOTHING),
        ("count", {"text": 1}, "args.text", "expected str, got int"),
        ("count", {"text": "", "txt": ""}, "args.txt", "there is no such field"),
        ("count", [], "args", "expected object, got array"),
        (
            "total",
            {"tree": {"value": 1, "children": [{}]}},
            "args.tree.children[0].value",
            "expected a value, got nothing",
        ),
        ("rich", {"place": {"name": "a", "height": "b"}}, "args.place.height", "expected float, got str"),
    ],
)
def test_arguments_that_do_not_fit_are_named(process, op, args, where, what):
    module = process()
    module.send({"id": "r1", "method": "invoke", "params": {"op": op, "args": args}})
    assert module.read() == {
        "id": "r1",
        "ok": False,
        "error": {"code": "bad_request", "message": f"{where}: {what}", "details": {"path": where}},
    }


def test_args_may_be_absent_or_null(process):
    module = process()
    for params in ({"op": "echo"}, {"op": "echo", "args": None, "resume": None, "session_id": None}):
        module.send({"id": "r1", "method": "invoke", "params": params})
        assert module.read() == {"id": "r1", "ok": True, "result": None}


def test_an_unknown_op_or_method_is_unsupported(process):
    module = process()
    assert error(module.answer("cuont"))[0] == "unsupported_op"
    assert "it has count, echo" in error(module.answer("cuont"))[1]
    module.send({"id": "r2", "method": "dance"})
    assert error(module.read()) == ("unsupported_op", "there is no method 'dance'")


def test_a_module_without_operations_says_so(process, tmp_path):
    program = tmp_path / "empty.py"
    program.write_text('from amplifier_module import Module\nModule("empty").run()\n')
    assert error(process(program=program).answer("count")) == (
        "unsupported_op",
        "empty has no operation 'count'; it has none",
    )


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("own", "out_of_ink", "buy some soon"),
        ("kernel", "internal", "unreachable: the other one"),
        ("code", "internal", "'' is no code: no code"),
        ("details", "own", "with details that are no JSON"),
        ("exit", "internal", "SystemExit: 3"),
        ("unprintable", "internal", "Unprintable: its text raised RuntimeError"),
        ("what", "internal", "ValueError: I do not know what"),
        ("nan", "internal", "the result of fail: expected JSON: NaN and Infinity are not JSON"),
        ("object", "internal", "the result of fail: expected JSON: Encoding objects of type object is unsupported"),
        ("surrogate", "internal", "the result of fail: expected JSON: 'utf-8' codec can't encode"),
        ("deep", "internal", "the result of fail: expected JSON: maximum recursion depth exceeded"),
        ("large", "internal", "the result of fail: expected at most 33,553,408 bytes, got 34,603,010"),
    ],
)
def test_an_exception_becomes_an_error_and_the_process_lives(process, how, code, message):
    module = process()
    reply = module.answer("fail", {"how": how})
    assert error(reply)[0] == code
    assert error(reply)[1].startswith(message)
    assert module.answer("count", {"text": "a"})["ok"]
    _, errors = module.end()
    traced = message.split(":")[0] in ("SystemExit", "Unprintable", "ValueError")
    assert ("Traceback" in errors) == traced


def test_details_of_an_error(process):
    module = process()
    assert module.answer("fail", {"how": "own"})["error"]["details"] == {"colour": "cyan"}
    cause = {"code": "unreachable", "message": "the other one"}
    assert module.answer("fail", {"how": "kernel"})["error"]["details"] == {"cause": cause}
    assert "Encoding objects" in module.answer("fail", {"how": "details"})["error"]["details"]["omitted"]
    assert len(module.answer("fail", {"how": "long"})["error"]["message"]) == 8192
    assert module.answer("fail", {"how": "null"})["result"] == {"n": [1.0, None, {"m": 1.5}]}


def test_whatever_is_printed_goes_to_stderr(process):
    module = process()
    assert module.answer("noisy") == {"ok": True, "result": "quiet"}
    rest, errors = module.end()
    assert rest == []
    for text in ("printed ✓", "written", "from C", "from a child"):
        assert text in errors


def test_chunks_come_before_the_reply(process):
    module = process()
    for op in ("stream", "stream.async"):
        module.invoke("r1", op, {"to": 2})
        assert module.read() == {"id": "r1", "chunk": {"n": 1, "pad": ""}}
        assert module.read() == {"id": "r1", "chunk": {"n": 2, "pad": ""}}
        assert module.read() == {"id": "r1", "ok": True, "result": 2}


def test_events_come_with_the_reply_and_no_more_than_a_thousand(process):
    module = process()
    assert module.answer("tell", {"events": 2})["events"] == [
        {"event": "kit:told", "data": {"n": 0}},
        {"event": "kit:told", "data": {"n": 1}},
    ]
    assert len(module.answer("tell", {"events": 1001})["events"]) == 1000


def test_many_at_once_are_answered_in_any_order(process):
    module = process()
    for n in range(200):
        module.invoke(f"w{n}", "wait", {"seconds": 0.2}) if n % 2 else module.invoke(f"n{n}", "nap", {"seconds": 0.2})
    module.invoke("last", "stream.async", {"to": 0})
    answered = [module.read()["id"] for _ in range(201)]
    assert answered[0] == "last"
    assert len(set(answered)) == 201


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("wait", {"seconds": 30}),
        ("hang", {"seconds": 30}),
        ("nap", {"seconds": 30}),
        ("nap", {"seconds": 30, "stubborn": 2}),
        ("stream", {"to": 10**9, "pause": 0.01}),
        ("stream.async", {"to": 10**9, "drain": False}),
    ],
)
def test_a_cancelled_request_is_answered_within_a_second(process, op, args):
    module = process()
    module.invoke("r1", op, args)
    module.invoke("r2", "count", {"text": ""})
    while module.read()["id"] != "r2":
        pass
    began = time.monotonic()
    module.send({"method": "cancel", "params": {"id": "r1"}})
    while "chunk" in (reply := module.read()):
        pass
    assert time.monotonic() - began < 1
    assert error(reply) == ("cancelled", "the caller gave up")
    assert module.answer("echo", key="r3")["ok"]  # and nothing came between


def test_a_function_learns_that_its_caller_gave_up(process):
    module = process()
    for key, op in (("r1", "wait"), ("r2", "nap")):
        module.invoke(key, op, {"seconds": 30})
        assert module.answer("count", {"text": ""})["ok"]
        module.send({"method": "cancel", "params": {"id": key}})
        assert error(module.read())[0] == "cancelled"
    module.answer("wait", {"seconds": 0.2})
    _, errors = module.end()
    assert "told" in errors
    assert "cancelled in a nap" in errors
    assert "no chunk after the end" in errors
    assert "no call either" in errors


def test_a_request_that_waits_for_a_thread_is_cancelled_before_it_begins(process):
    module = process("one")
    module.invoke("r1", "wait", {"seconds": 0.5})
    module.invoke("r2", "noisy")
    module.send({"method": "cancel", "params": {"id": "r2"}})
    assert module.read()["id"] == "r2"
    assert module.read()["result"] == "waited"
    assert module.answer("echo")["ok"]
    assert "printed" not in module.end()[1]


def test_plain_functions_take_turns_where_the_descriptor_says_so(process):
    module = process("one")
    for n in range(3):
        module.invoke(f"r{n}", "wait", {"seconds": 0.1})
    assert [module.read()["id"] for _ in range(3)] == ["r0", "r1", "r2"]


def test_a_process_whose_threads_are_all_stuck_ends(process):
    module = process("one")
    module.invoke("r1", "hang", {"seconds": 60})
    assert module.answer("nap", key="r2")["ok"]
    module.send({"method": "cancel", "params": {"id": "r1"}})
    assert error(module.read())[0] == "cancelled"
    assert module.popen.wait(10) == 1
    _, errors = module.end()
    assert "everything: every thread is held by a function whose caller gave up" in errors


def test_one_stuck_function_of_many_ends_nothing(process):
    module = process()
    module.invoke("r1", "hang", {"seconds": 60})
    assert module.answer("nap")["ok"]
    module.send({"method": "cancel", "params": {"id": "r1"}})
    assert error(module.read())[0] == "cancelled"
    assert module.answer("wait", {"seconds": 1.2})["ok"]


def test_a_cancel_of_nothing_is_no_matter(process):
    module = process()
    module.send({"method": "cancel", "params": {"id": "r9"}}, {"method": "cancel", "params": {}}, {"method": "dance"})
    assert module.answer("echo")["ok"]
    assert "everything: cancel: params.id: expected a value, got nothing" in module.end()[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id":"r7","method":', "request: input data was truncated"),
        (b'{"id":"r7","method":3}', "request.method: expected str, got int"),
        (b'{"id":"r7"}', "request.method: expected a value, got nothing"),
        (b'{"id":"r7","method":"invoke","params":[]}', "params: expected object, got array"),
        (b'{"id":"r7","method":"invoke","params":{}}', "params.op: expected a value, got nothing"),
        (b'{"id":"r7","method":"invoke","params":{"op":"echo","args":' + b"[" * 5000, "request: "),
    ],
)
def test_a_broken_line_is_answered_if_it_has_an_id(process, line, message):
    module = process()
    module.send(line + b"\n")
    reply = module.read()
    assert reply["id"] == "r7"
    assert error(reply)[0] == "bad_request"
    assert error(reply)[1].startswith(message)
    assert module.answer("echo")["ok"]


def test_a_broken_line_without_an_id_is_told_on_stderr(process):
    module = process()
    module.send(b"nonsense\n", b"\xff\n", b"\n", b"  \r\n", b'{"method":"health","id":"r1"}\r\n')
    assert module.read()["ok"]
    told = module.end()[1].splitlines()
    assert len(told) == 2
    assert told[0].startswith("everything: stdin: request: ")


def test_a_second_request_of_the_same_id_is_ignored(process):
    module = process()
    module.invoke("r1", "wait", {"seconds": 0.2})
    module.invoke("r1", "echo")
    assert module.read()["result"] == "waited"
    assert module.end() == ([], "everything: two requests have the id 'r1'\n")


def test_a_message_beyond_the_bound_is_refused(process):
    module = process()
    start, end = b'{"id":"r1","method":"invoke","params":{"op":"echo","args":{"value":"', b'"}}}\n'
    module.send(start, b"x" * (32 * MIB - len(start) - len(end) + 1 - 2000), end)
    assert len(module.read()["result"]) > 31 * MIB
    module.send(start, b"x" * 33 * MIB, end)
    code, message = error(module.read())
    assert code == "bad_request"
    assert message.startswith("expected a message of at most 33,554,432 bytes, got 34,603,")
    module.send(b" " * 2000, start, b"x" * 33 * MIB, end)
    assert module.answer("echo", key="r2")["ok"]


def test_too_many_requests_in_progress_are_refused(process):
    module = process("small")
    for n in range(10):
        params = {"op": "wait", "args": {"seconds": 0.3}, "more": "x" * 3900}
        module.send({"id": n, "method": "invoke", "params": params})
    replies = {reply["id"]: reply for reply in (module.read() for _ in range(10))}
    assert error(replies[9]) == ("busy", "everything has too many requests in progress")
    assert all(replies[n]["ok"] for n in range(9))


def test_stdout_may_be_a_file(command, tmp_path):
    request = {"id": "r1", "method": "invoke", "params": {"op": "noisy"}}
    written = tmp_path / "out"
    with (
        written.open("wb") as out,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdin
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not written.read_bytes().endswith(b"\n"):  # after the end of stdin a request has half a second
            assert time.monotonic() < deadline
            time.sleep(0.01)
        _, errors = process.communicate(timeout=30)
    assert json.loads(written.read_bytes()) == {"id": "r1", "ok": True, "result": "quiet"}
    assert "printed ✓" in errors.decode()


def test_what_was_printed_before_goes_to_stderr_too(process, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it nothing can be done
    (tmp_path / "early.py").write_text(f"print('early')\n{PLAIN.replace('io.StringIO()', 'sys.stdout')}")
    module = process(program=tmp_path / "early.py")
    assert module.answer("count", {"text": ""}) == {"ok": True, "result": 0}
    assert module.end() == ([], "early\nafter")


def test_a_stdin_that_cannot_be_read_has_ended(command):
    with Path(os.devnull).open("wb") as nothing:
        done = subprocess.run(command, stdin=nothing, capture_output=True, check=True)
    assert done.stdout == b""


def test_the_end_of_stdin_ends_an_idle_module_at_once(process):
    module = process()
    assert module.answer("nap")["ok"]
    began = time.monotonic()
    assert module.end() == ([], "")
    assert module.popen.returncode == 0
    assert time.monotonic() - began < 1


def test_at_the_end_of_stdin_what_is_soon_done_is_answered(process):
    module = process()
    module.invoke("r1", "wait", {"seconds": 0.1})
    module.invoke("r2", "nap", {"seconds": 0.1})
    rest, _ = module.end()
    assert {each["id"]: each["ok"] for each in rest} == {"r1": True, "r2": True}
    assert module.popen.returncode == 0


@pytest.mark.parametrize(("op", "args"), [("hang", {}), ("nap", {}), ("nap", {"stubborn": 60})])
def test_at_the_end_of_stdin_the_rest_is_cancelled_within_a_second(process, op, args):
    module = process()
    module.invoke("r1", op, {"seconds": 60, **args})
    assert module.answer("stream.async", {"to": 0}, key="r2")["ok"]
    began = time.monotonic()
    rest, _ = module.end()
    assert time.monotonic() - began < 10  # of which a second is the module's own
    assert [error(each)[0] for each in rest] == ["cancelled"]
    assert module.popen.returncode == 0


def test_nobody_reads_stdout_any_more(process):
    module = process()
    assert module.answer("nap")["ok"]
    module.popen.stdout.close()
    module.invoke("r1", "stream", {"to": 100})
    module.popen.stdin.close()
    assert module.popen.wait(10) == 0
    assert module.popen.stderr.read() == b""
    module.popen.stdin = module.popen.stdout = None  # they are closed


PLAIN = """
import io, sys
from amplifier_module import Module

module = Module("plain")

@module.op
def count(text: str) -> int:
    assert "asyncio" not in sys.modules
    return len(text)

if __name__ == "__main__":
    if "--descriptor" not in sys.argv:
        sys.stdout = io.StringIO()  # some programs do so
    module.run()
    sys.stderr.write("after")
"""


def test_a_module_of_plain_functions_starts_without_asyncio(process, tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    module = process(program=tmp_path / "plain.py")
    assert module.answer("count", {"text": "abc"})["result"] == 3
    assert module.answer("count", {"text": "abc"}, resume={"state": None, "results": []})["error"] == {
        "code": "bad_request",
        "message": "resume: count makes no system calls",
    }
    assert module.end() == ([], "after")


def test_a_module_that_is_run_by_its_name_prints_that(tmp_path, traced):
    (tmp_path / "plain.py").write_text(PLAIN)
    command = [sys.executable, "-m", "plain", "--descriptor"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert json.loads(told)["transport"]["command"] == [sys.executable, "-m", "plain"]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal is a pty")
def test_a_person_is_told_what_stdin_is_for(command):
    person, terminal = os.openpty()
    with subprocess.Popen(command, stdin=terminal, stderr=subprocess.PIPE) as module:
        os.close(terminal)
        os.write(person, b"\x04")  # the end of input
        _, errors = module.communicate(timeout=60)
    os.close(person)
    assert errors == b"everything reads a JSON object a line from stdin; --descriptor prints its descriptor\n"
