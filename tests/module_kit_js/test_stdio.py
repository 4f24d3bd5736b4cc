"""A module of the kit for Node over STDIO, line by line: most of what holds for the kit for Python, and its own."""

import json
import os
import socket
import subprocess
import time

import pytest
from tests.module_kit.test_stdio import (
    MIB,
    NOTHING,
    error,
    test_a_broken_line_without_an_id_is_told_on_stderr,
    test_a_cancel_of_nothing_is_no_matter,
    test_a_message_beyond_the_bound_is_refused,
    test_a_person_is_told_what_stdin_is_for,
    test_a_request_that_waits_for_a_thread_is_cancelled_before_it_begins,
    test_a_second_request_of_the_same_id_is_ignored,
    test_a_stdin_that_cannot_be_read_has_ended,
    test_an_invocation,
    test_an_unknown_op_or_method_is_unsupported,
    test_args_may_be_absent_or_null,
    test_at_the_end_of_stdin_what_is_soon_done_is_answered,
    test_chunks_come_before_the_reply,
    test_events_come_with_the_reply_and_no_more_than_a_thousand,
    test_health_and_describe,
    test_json_passes_unchanged,
    test_many_at_once_are_answered_in_any_order,
    test_nobody_reads_stdout_any_more,
    test_one_stuck_function_of_many_ends_nothing,
    test_plain_functions_take_turns_where_the_descriptor_says_so,
    test_the_end_of_stdin_ends_an_idle_module_at_once,
    test_too_many_requests_in_progress_are_refused,
    test_whatever_is_printed_goes_to_stderr,
)
from tests.module_kit_js.conftest import KIT

__all__ = [
    "test_a_broken_line_without_an_id_is_told_on_stderr",
    "test_a_cancel_of_nothing_is_no_matter",
    "test_a_message_beyond_the_bound_is_refused",
    "test_a_person_is_told_what_stdin_is_for",
    "test_a_request_that_waits_for_a_thread_is_cancelled_before_it_begins",
    "test_a_second_request_of_the_same_id_is_ignored",
    "test_a_stdin_that_cannot_be_read_has_ended",
    "test_an_invocation",
    "test_an_unknown_op_or_method_is_unsupported",
    "test_args_may_be_absent_or_null",
    "test_at_the_end_of_stdin_what_is_soon_done_is_answered",
    "test_chunks_come_before_the_reply",
    "test_events_come_with_the_reply_and_no_more_than_a_thousand",
    "test_health_and_describe",
    "test_json_passes_unchanged",
    "test_many_at_once_are_answered_in_any_order",
    "test_nobody_reads_stdout_any_more",
    "test_one_stuck_function_of_many_ends_nothing",
    "test_plain_functions_take_turns_where_the_descriptor_says_so",
    "test_the_end_of_stdin_ends_an_idle_module_at_once",
    "test_too_many_requests_in_progress_are_refused",
    "test_whatever_is_printed_goes_to_stderr",
]

pytestmark = pytest.mark.newest  # it is the same on each Python

KIT_URL = (KIT / "index.js").as_uri()
KEYS = '{"__proto__":{"polluted":true},"constructor":1,"toString":null}'


def raw(module, text):
    """Echo JSON, and give the JSON that comes back."""
    line = f'{{"id":"r1","method":"invoke","params":{{"op":"echo","args":{{"value":{text}}}}}}}\n'
    module.send(line.encode())
    return module.popen.stdout.readline().decode().strip()


@pytest.mark.parametrize(
    "text",
    [
        "[9007199254740991,9007199254740992,9007199254740993,-9007199254740993,18446744073709551616]",
        '["9007199254740993","\\\\",-1,0.1,1e-7]',
        KEYS,
        '"\u2028\u2029\ufeff\x7f"',
        "1" + 4000 * "0",
    ],
)
def test_json_comes_back_as_it_was(lasting, text):
    assert raw(lasting, text) == f'{{"id":"r1","ok":true,"result":{text}}}'


@pytest.mark.parametrize(
    ("text", "told"), [("-0", "0"), ("1.0", "1"), ("1e3", "1000"), ('"\\u00e9\\ud83d\\ude00"', '"é😀"')]
)
def test_json_comes_back_in_other_words(lasting, text, told):
    assert raw(lasting, text) == f'{{"id":"r1","ok":true,"result":{told}}}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1e400", "request: expected a number below 1.8e308, got 1e400"),
        ("-1e400", "request: expected a number below 1.8e308, got -1e400"),
        ("1" * 5000, "request: expected an integer of at most 4300 digits"),
        ('"\\ud800"', "request: a lone surrogate is not JSON"),
        ('[{"\\ud800":1}]', "request: a lone surrogate is not JSON"),
        ("NaN", "request: Unexpected token 'N'"),
        ("1-2", "request: "),
        ("{12345678901234567890:1}", "request: Expected property name"),
        ("[012345678901234567890]", "request: Unexpected number"),
        ("[" * 300 + "]" * 300, "request: expected at most 200 levels"),
    ],
)
def test_what_is_no_json_is_refused(lasting, text, problem):
    reply = json.loads(raw(lasting, text))
    assert (reply["id"], error(reply)[0]) == ("r1", "bad_request")
    assert error(reply)[1].startswith(problem)
    assert lasting.answer("echo")["ok"]


def test_bytes_that_are_no_utf8_and_a_byte_order_mark_are_refused(process):
    module = process()
    module.send(b'{"id":"r1","method":"health","x":"\xff"}\n', b'\xef\xbb\xbf{"id":"r2","method":"health"}\n')
    assert error(module.read()) == ("bad_request", "request: expected UTF-8")
    assert error(module.read()) == ("bad_request", "request: a byte order mark is not JSON")


def test_lines_may_come_in_pieces(process):
    module = process()
    line = b'{"id":1,"method":"invoke","params":{"op":"echo","args":{"value":"\xe2\x82\xac"}}}\r\n'
    line += b'{"id":2,"method":"health"}\n'
    for n in range(len(line)):
        module.send(line[n : n + 1])
    assert {reply["id"]: reply["result"] for reply in (module.read(), module.read())}[1] == "€"


@pytest.mark.parametrize(
    ("op", "args", "where", "what"),
    [
        ("count", {}, "args.text", NOTHING),
        ("count", {"text": 1}, "args.text", "expected string, got number"),
        ("count", {"text": "", "txt": ""}, "args.txt", "there is no such field"),
        ("count", [], "args", "expected object, got array"),
        ("total", {"tree": {"value": 1, "children": [{}]}}, "args.tree.children[0].value", NOTHING),
        ("total", {"tree": {"value": 1.5}}, "args.tree.value", "expected integer, got number"),
        ("total", {"tree": {"value": 2**53}}, "args.tree.value", "expected integer, got an integer beyond 2^53"),
        ("rich", {"place": {"name": "a", "height": "b"}}, "args.place.height", "expected number, got string"),
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


NO_JSON = "the result of fail: expected JSON: "


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("own", "out_of_ink", "buy some soon"),
        ("kernel", "internal", "unreachable: the other one"),
        ("code", "internal", "'' is no code: no code"),
        ("details", "own", "with details that are no JSON"),
        ("unprintable", "internal", "an error whose text cannot be read"),
        ("text", "internal", "threw 'only text'"),
        ("what", "internal", "RangeError: I do not know what"),
        ("nan", "internal", f"{NO_JSON}n[1]: Infinity is not JSON"),
        ("json", "internal", f"{NO_JSON}n: NaN is not JSON"),
        ("function", "internal", f"{NO_JSON}a function is not JSON"),
        ("promise", "internal", f"{NO_JSON}words: a Promise, which may lack an await, is not JSON"),
        ("map", "internal", f"{NO_JSON}a Map is not JSON"),
        ("surrogate", "internal", f"{NO_JSON}a lone surrogate is not JSON"),
        ("surrogate key", "internal", f"{NO_JSON}�: a lone surrogate is not JSON"),
        ("circular", "internal", f"{NO_JSON}Converting circular structure to JSON"),
        ("deep", "internal", f"{NO_JSON}Maximum call stack size exceeded"),
        ("large", "internal", "the result of fail: expected at most 33,553,408 bytes, got 34,603,010"),
        ("large text", "internal", "the result of fail: expected at most 33,553,408 bytes, got 37,748,738"),
        ("timer", "internal", "Error: in a timer"),
        ("floating", "internal", "Error: nobody waits for it"),
    ],
)
def test_an_error_is_told_and_the_process_lives(process, how, code, message):
    module = process()
    reply = module.answer("fail", {"how": how})
    assert error(reply)[0] == code
    assert error(reply)[1].startswith(message)
    assert module.answer("count", {"text": "a"})["ok"]
    _, errors = module.end()
    assert bool(errors) == message.startswith(("RangeError", "Error", "an error", "threw"))


def test_details_of_an_error(process):
    module = process()
    assert module.answer("fail", {"how": "own"})["error"]["details"] == {"colour": "cyan"}
    cause = {"code": "unreachable", "message": "the other one"}
    assert module.answer("fail", {"how": "kernel"})["error"]["details"] == {"cause": cause}
    omitted = {"omitted": "error: expected JSON: details.what: a Map is not JSON"}
    assert module.answer("fail", {"how": "details"})["error"]["details"] == omitted
    assert len(module.answer("fail", {"how": "long"})["error"]["message"]) == 8192


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("null", {"n": [1.0, None, {"m": 1.5}]}),
        ("bigint", {"n": [2**64, -1, None]}),
        ("nothing", None),
        ("empty", {"date": "1970-01-01T00:00:00.000Z", "at": [None, {}, {}, None, 1], "text": "{}"}),
        ("backslash", "\\ud800"),
    ],
)
def test_results_are_written_as_they_are(process, how, result):
    assert process().answer("fail", {"how": how}) == {"ok": True, "result": result}


def test_an_error_that_belongs_to_no_call_is_a_line_on_stderr(process):
    for arguments, told in (
        (("broken",), "outside of any operation: Error: in no operation"),
        ((), "Error: after the reply"),
    ):
        module = process(*arguments)
        assert module.answer("fail", {"how": "late"})["result"] == "answered"
        assert module.answer("wait", {"seconds": 0.1})["ok"]
        assert told in module.end()[1]
        assert module.popen.returncode == 0


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("wait", {"seconds": 30}),
        ("hang", {"seconds": 30}),
        ("nap", {"seconds": 30}),
        ("nap", {"seconds": 30, "stubborn": 2}),
        ("stream", {"to": 10**9}),
        ("stream", {"to": 10**9, "drain": False, "pause": 0.001}),
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
    told = ["told", "cancelled in a nap", "no chunk after the end", "no call either"]
    assert errors.splitlines() == told  # an error that only says so is no news


def test_a_process_whose_places_are_all_held_ends(process):
    module = process("one")
    module.invoke("r1", "hang", {"seconds": 60})
    module.send({"id": "r2", "method": "health"})
    assert module.read()["ok"]
    module.send({"method": "cancel", "params": {"id": "r1"}})
    assert error(module.read())[0] == "cancelled"
    assert module.popen.wait(10) == 1
    assert "everything: every place is held by a function whose caller gave up" in module.end()[1]


def test_a_function_that_ends_late_gives_its_place_to_the_next(process):
    module = process("one")
    module.invoke("r1", "nap", {"seconds": 30, "stubborn": 1.5})
    module.send({"method": "cancel", "params": {"id": "r1"}})
    assert error(module.read())[0] == "cancelled"
    assert module.answer("echo")["ok"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id":"r7","method":', "request: Unexpected end of JSON input"),
        (b'{"id":"r7","method":3}', "request.method: expected string, got number"),
        (b'{"id":"r7"}', "request.method: expected a value, got nothing"),
        (b'{"id":"r7","method":"invoke","params":[]}', "params: expected object, got array"),
        (b'{"id":"r7","method":"invoke","params":{}}', "params.op: expected a value, got nothing"),
        (b'{"id":"r7","method":"invoke","params":{"op":"echo","args":' + b"[" * 5000, "request: expected at most 200"),
        (
            b'{"id":"r7","method":"invoke","params":{"op":"echo","resume":{"results":[1]}}}',
            "params.resume.results[0]: ",
        ),
        (b'{"id":"r7","method":"invoke","params":{"op":"steps","resume":{"state":[]}}}', "resume.state: expected"),
    ],
)
def test_a_broken_line_is_answered_if_it_has_an_id(lasting, line, message):
    lasting.send(line + b"\n")
    reply = lasting.read()
    assert reply["id"] == "r7"
    assert error(reply)[0] == "bad_request"
    assert error(reply)[1].startswith(message)
    assert lasting.answer("echo")["ok"]


def test_stdout_may_be_a_file(command, tmp_path):
    told = b'{"id":"r1","method":"invoke","params":{"op":"tell","args":{"events":0}}}\n'
    out = tmp_path / "out"
    with out.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run(command, input=told, stdout=file, stderr=subprocess.PIPE, check=True)
        file.write(b"after\n")
    assert out.read_text() == 'before\n{"id":"r1","ok":true,"result":null}\nafter\n'


def test_files_as_stdin_and_stderr(command, tmp_path):
    (tmp_path / "in").write_bytes(b'{"id":1,"method":"invoke","params":{"op":"fail","args":{"how":"what"}}}\n')
    with (tmp_path / "in").open("rb") as requests, (tmp_path / "errors").open("wb") as errors:
        done = subprocess.run(command, stdin=requests, stdout=subprocess.PIPE, stderr=errors, check=True)
        errors.write(b"after\n")
    assert error(json.loads(done.stdout))[0] == "internal"
    lines = (tmp_path / "errors").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("RangeError: I do not know", "after")


def test_sockets_as_stdout_and_stderr(command):
    """They cannot be opened by their names: what the process itself prints is still kept apart."""
    told = b'{"id":"r1","method":"invoke","params":{"op":"fail","args":{"how":"what"}}}\n'
    for name in ("stdout", "stderr"):
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("rb") as file:
            streams: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, name: theirs}
            with subprocess.Popen(command, stdin=subprocess.PIPE, **streams) as module:
                theirs.close()
                out, errors = module.communicate(told, timeout=60)
            both = {"stdout": out, "stderr": errors, name: file.read()}
        assert error(json.loads(both["stdout"]))[0] == "internal"
        assert b"RangeError: I do not know" in both["stderr"]


def test_nobody_reads_stderr_any_more(process):
    module = process()
    module.popen.stderr.close()
    for op, args in (
        ("fail", {"how": "what"}),
        ("fail", {"how": "late"}),
        ("wait", {"seconds": 0.1}),
        ("noisy", {}),
    ) * 2:
        module.answer(op, args)
    assert module.answer("echo")["ok"]
    module.popen.stdin.close()
    assert module.popen.wait(10) == 0
    module.popen.stdout.close()
    module.popen.stdin = module.popen.stdout = module.popen.stderr = None  # they are closed


def test_at_the_end_of_stdin_the_rest_is_cancelled_within_a_second(process):
    for op in ("hang", "nap"):
        module = process()
        module.invoke("r1", op, {"seconds": 60})
        assert module.answer("stream", {"to": 0}, key="r2")["ok"]
        began = time.monotonic()
        rest, _ = module.end()
        assert time.monotonic() - began < 10  # of which a second is the module's own
        assert [error(each)[0] for each in rest] == ["cancelled"]
        assert module.popen.returncode == 0


def test_a_module_ends_once_nobody_reads_stdout(process):
    """Without the end of stdin, too."""
    module = process()
    assert module.answer("nap")["ok"]
    module.popen.stdout.close()
    module.invoke("r1", "stream", {"to": 10**9})
    assert module.popen.wait(10) == 0
    assert module.popen.stderr.read() == b""
    module.popen.stdin.close()
    module.popen.stdin = module.popen.stdout = None  # they are closed


def test_chunks_wait_while_nobody_reads_them_and_others_do_not(process):
    """What a function that awaits its chunks holds in memory does not grow, and a cancel still comes through."""
    module = process()
    module.invoke("r1", "stream", {"to": 10**9, "size": MIB})
    module.send({"id": "r2", "method": "health"}, {"method": "cancel", "params": {"id": "r1"}})
    sizes, answered = 0, set()
    while answered != {"r1", "r2"}:
        reply = module.read()
        sizes += "chunk" in reply
        answered |= {reply["id"]} if "ok" in reply else set()
    assert sizes < 4


def test_chunks_that_nobody_takes_have_a_bound(process):
    module = process()
    module.invoke("r1", "stream", {"to": 1000, "size": MIB, "drain": False})
    while "chunk" in (reply := module.read()):
        pass
    code, message = error(reply)
    assert code == "internal"
    assert message.endswith("bytes of chunks wait: await context.chunk(…)")


def test_a_stateless_run_goes_on_in_another_process(process):
    module = process()
    asked = module.answer("heap", {"size": 2})["pending"]
    module.send({"id": "r1", "method": "invoke", "params": {"op": "together", "args": {"count": 1, "size": 1}}})
    waiting = module.read()["pending"]
    other = process()
    done = {"results": [{"ok": True, "result": 7}]}
    assert other.answer("heap", {"size": 2}, resume={"state": asked["state"], **done})["pending"]["syscalls"]
    code, message = error(other.answer("together", resume={"state": waiting["state"], **done}))
    assert (code, message[:46]) == ("interrupted", "no run of this process waits for these results")


def test_it_prints_its_descriptor(command, node):
    descriptor = json.loads(subprocess.run([*command, "--descriptor"], capture_output=True, check=True).stdout)
    assert descriptor["transport"]["type"] == "stdio"
    assert [os.path.realpath(word) for word in descriptor["transport"]["command"]] == list(
        map(os.path.realpath, command)
    )
    told = subprocess.run([*command, "one", "--descriptor=http://[::1]/a=b"], capture_output=True, check=True).stdout
    assert json.loads(told)["transport"] == {"type": "http", "url": "http://[::1]/a=b"}
    assert json.loads(told)["limits"] == {"concurrency": 1}
    program = ["--input-type=module", "-e", f"import {{ Module }} from '{KIT_URL}'; new Module('m').descriptor()"]
    failed = subprocess.run([node, *program], capture_output=True, text=True, check=False)
    assert "TypeError: a program that is no file has no descriptor" in failed.stderr
