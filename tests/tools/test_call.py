"""``amplifier-kernel call`` as a shell runs it, with modules that are processes."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[1] / "modules"
AGENT = Path(__file__).parents[2] / "examples" / "agent"
COMMAND = [sys.executable, "-m", "amplifier_tools", "call"]


@pytest.fixture
def describe(tmp_path):
    """Write the descriptor of a program of tests/modules, and give its file."""

    def write(file, *argv, kind="tool", name=None, capabilities=(), **fields):
        name = name or file.partition(".")[0]
        if file not in ("misbehaving.py", "hook.py"):
            argv = ("--name", name, "--kind", kind, "--capabilities", json.dumps(list(capabilities)), *argv)
        command = [sys.executable, str(MODULES / file), *argv]
        described = {
            "name": name, "kind": kind, "capabilities": list(capabilities),
            "transport": {"type": "stdio", "command": command}, **fields,
        }  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(described))
        return str(path)

    return write


@pytest.fixture
def call(traced):
    """Run the command to its end: exit code, stdout, stderr."""

    def run(*words, stdin=None, trusted=True):
        options = ["--trusted"] if trusted else []
        done = subprocess.run([*COMMAND, *options, *words], input=stdin, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_stdout_has_the_result_alone_and_stderr_the_tree(call, describe):
    status, out, errors = call(describe("echo.py"), "echo", '{"text": "ü\\u202e"}')
    assert (status, json.loads(out)) == (0, {"text": "ü\u202e"})
    assert out == '{"text":"ü\\u202e"}\n'
    assert re.search(r"\d m?s  ✓ mount /mnt/tools/echo \(tool\)\n", errors)
    policy = r"policy: allow for the session, trusted \(CommandLine [0-9.]+ \w+\)"
    assert re.search(rf"─· {policy}\n.*─· module:start /mnt/tools/echo \{{\"pid\":", errors)
    assert re.search(r'\d ms  ✓ /mnt/tools/echo echo \{"text":"ü\\u202e"} → \{"text":"ü\\u202e"}\n', errors)
    assert "error" not in errors


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["echo", "{"], None, "JSON: expected JSON: Input data was truncated"),
        (["echo", "[1]"], None, "JSON: expected an object, got list"),
        (["echo", "{}", "--args-file", "-"], b"{}", "JSON and --args-file: expected one of them"),
        (["echo", "--args-file", "-"], b'{"a": 1, "a": NaN}', "--args-file <stdin>: expected JSON"),
        (["echo", "--args-file", "-"], b'{"a": "%s"}' % (b"x" * 4000), "at most 4000 bytes (limits.message_bytes)"),
        (["echo", "--args-file", "nowhere.json"], None, "nowhere.json"),
        (["echo", "--grant", "fs:read"], None, "--grant: expected a path after fs:read: or fs:write:"),
        (["echo", "--grant", "bogus"], None, "--grant: expected one of fs:read:PATH, fs:write:PATH,"),
        (["echo", "--timeout", "0"], None, "0.0 is not in the range x>0"),
    ],
)
def test_bad_usage_is_told_in_a_line(call, describe, words, stdin, said):
    status, out, errors = call(describe("echo.py", limits={"message_bytes": 4000}), *words, stdin=stdin)
    assert (status, out) == (2, "")
    assert said in errors
    assert "Traceback" not in errors


def test_arguments_come_from_a_file_and_from_stdin(call, describe, tmp_path):
    (tmp_path / "args.json").write_text('{"a": 1}')
    assert call(describe("echo.py"), "echo", "--args-file", str(tmp_path / "args.json"))[1] == '{"a":1}\n'
    assert call(describe("echo.py"), "echo", "--args-file", "-", stdin=b'{"a": 2}')[1] == '{"a":2}\n'
    assert call(describe("echo.py"), "echo")[1] == "{}\n"


def test_a_descriptor_that_does_not_fit_is_bad_usage(call, tmp_path):
    (tmp_path / "m.json").write_text("{}")
    for file, said in (("m.json", "$.name: expected a value"), ("none.json", "No such file")):
        status, out, errors = call(str(tmp_path / file), "echo")
        assert (status, out) == (2, "")
        assert said in errors


def test_without_an_op_a_pipe_gets_the_description(call, describe):
    status, out, _ = call(describe("echo.py"))
    assert status == 0
    assert json.loads(out)["name"] == "echo"
    assert "sleep" in json.loads(out)["inputs"]


def test_chunks_come_on_stderr_or_with_the_result_as_lines(call, describe):
    file = describe("streamer.py", kind="provider")
    status, out, errors = call(file, "count", '{"to": 2}')
    assert (status, out) == (0, '{"count":2}\n')
    assert errors.index('chunk {"n":1,"pad":""}\nchunk {"n":2') < errors.index("/mnt/providers/streamer count")
    status, out, errors = call(file, "count", '{"to": 2}', "--chunks")
    assert out.splitlines() == ['{"chunk":{"n":1,"pad":""}}', '{"chunk":{"n":2,"pad":""}}', '{"result":{"count":2}}']
    assert "chunk" not in errors
    assert call(file, "count", '{"to": 2}', "--quiet") == (0, '{"count":2}\n', "")
    status, out, errors = call(file, "fail", '{"to": 1}')
    assert (status, out) == (1, "")
    assert errors.endswith("error: mine: after all\n")


def test_an_error_of_the_module_is_told_last_with_its_stderr_in_the_tree(call, describe):
    code = "say('  one\\n\\x1b[31mtwo'); time.sleep(0.2); os._exit(3)"
    file = describe("misbehaving.py", "m", "go", code, name="m", version="1.0.0")
    status, out, errors = call(file, "go")
    assert (status, out) == (1, "")
    assert re.search(r"✗ /mnt/tools/m go \{}\n +unreachable: .*\n(?:.*\n)* +exit_code: 3\n", errors)
    assert re.search(r"\n +stderr:\n +  one\n +\\x1b\[31mtwo\n", errors)
    assert re.fullmatch("error: unreachable: .*", errors.splitlines()[-1])
    status, _, errors = call(file, "go", "--quiet")
    assert status == 1
    assert errors.startswith("error: unreachable: ")
    assert "\n    one\n  \\x1b[31mtwo\n" in errors


def test_an_unknown_op_names_the_known_ones(call, describe):
    status, _, errors = call(describe("echo.py"), "ecco")
    assert status == 1
    assert errors.endswith("hint: it has echo, sleep, deaf, fail, exit, env, pid, stderr, noise\n")
    refusal = json.dumps({"code": "unsupported_op", "message": "no"})
    status, _, errors = call(
        describe("misbehaving.py", "m", "no", f'line(\'"ok":false,"error":{refusal}}}\')', name="m", version="1.0.0"),
        "no",
    )
    assert (status, errors.splitlines()[-1]) == (1, "error: unsupported_op: no")


def test_the_option_for_a_capability_can_be_pasted_into_a_shell(call, describe):
    _, _, errors = call(describe("echo.py", capabilities=["fs:write:$tmp"]), "echo")
    assert errors.endswith("hint: --grant 'fs:write:$tmp'\n")


def test_no_option_is_told_for_a_capability_that_nothing_can_enforce(call, describe, tmp_path):
    (tmp_path / "m.wasm").write_bytes(b"\0asm\1\0\0\0")
    file = describe("echo.py", capabilities=["net:connect:*"], transport={"type": "wasm", "module": "m.wasm"})
    status, _, errors = call(file, "echo", "--grant-all", trusted=False)
    assert status == 2
    assert errors.splitlines()[-1].endswith("transport 'wasm' cannot enforce net:connect:* on this host")


def test_what_is_not_granted_is_told_with_the_option_for_it(call, describe):
    file = describe("echo.py", capabilities=["sys:emit"])
    status, out, errors = call(file, "echo")
    assert (status, out) == (2, "")
    assert "✗ policy: deny: CommandLine did not allow sys:emit" in errors
    assert errors.endswith("hint: --grant sys:emit\n")
    for option in (["--grant", "sys:emit"], ["--grant-all"]):
        status, out, errors = call(file, "echo", *option)
        assert (status, out) == (0, "{}\n")
        assert f"policy: allow for the session: {option[0]}" in errors


def test_what_is_granted_is_granted_to_the_other_modules_too(call, describe):
    other = describe("echo.py", name="other", capabilities=["sys:mounts", "sys:emit"])
    words = ["echo", "--mount", other, "--grant", "sys:emit", "--grant", "sys:mounts"]
    status, out, errors = call(describe("echo.py"), *words)
    assert (status, out) == (0, "{}\n")
    assert errors.index("✓ mount /mnt/tools/other") < errors.index("✓ mount /mnt/tools/echo")


def test_a_module_that_nothing_confines_is_refused_unless_it_is_trusted(call, describe):
    status, out, errors = call(describe("echo.py"), "echo", "--isolation", "none", trusted=False)
    assert (status, out) == (2, "")
    assert "WARNING: isolation 'none' is not installed" in errors
    assert "no isolation confines a local module on this host" in errors
    assert errors.endswith("hint: --trusted runs the modules without isolation\n")


def test_an_orchestrator_finds_the_other_modules(call, need, tmp_path, monkeypatch):
    for program in ("node", "perl"):
        need(program)
    agent = shutil.copytree(AGENT, tmp_path / "agent", ignore=shutil.ignore_patterns("notes", "__pycache__"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    tools = ("provider_script", "files", "grep", "note", "context")
    others = [word for name in tools for word in ("--mount", str(agent / f"{name}.json"))]
    status, out, errors = call(str(agent / "orchestrator.json"), "run", '{"goal": "look"}', "--grant-all", *others)
    assert status == 0
    assert json.loads(out)["answer"].startswith("That is all")
    assert re.search(r"\n.*✓ /mnt/orchestrators/loop run .*\n(?:.* [├└]─.*\n)+", errors)
    assert re.search(r"├─✓ /mnt/tools/grep search ", errors)
    assert re.search(r"[│ ] └─· artifact:write /mnt/tools/note ", errors)


def test_the_log_is_kept_where_it_was_asked_for(call, describe, tmp_path):
    log = tmp_path / "logs" / "run.jsonl"
    assert call(describe("echo.py"), "echo", "--log", str(log))[0] == 0
    assert "module:invoke" in [json.loads(line)["event"] for line in log.read_text().splitlines()]
    (tmp_path / "file").touch()
    status, out, errors = call(describe("echo.py"), "echo", "--log", str(tmp_path / "file" / "run.jsonl"))
    assert (status, out) == (2, "")
    assert errors.startswith("error: bad_request: event log ")


def test_the_time_is_bounded(call, describe):
    status, _, errors = call(describe("echo.py"), "sleep", '{"seconds": 600}', "--timeout", "0.2")
    assert status == 1
    assert "error: timeout: " in errors.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_ends_the_processes_however_often_it_comes(traced, describe, number):
    command = [
        *COMMAND,
        "--trusted",
        "--chunks",
        describe("streamer.py", kind="provider"),
        "endless",
        '{"pause": 0.01}',
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert b"chunk" in process.stdout.readline()
        process.send_signal(number)
        process.send_signal(number)
        errors = process.stderr.read().decode()
        assert process.wait(60) == 128 + number
    assert re.search(r"✗ /mnt/providers/streamer endless .*\n +cancelled: ", errors)
    pid = int(re.findall(r'module:start .*"pid":(\d+)', errors)[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_does_not_hear_the_cancel_is_ended_all_the_same(traced, describe):
    command = [
        *COMMAND,
        "--trusted",
        describe("misbehaving.py", "m", "go", "time.sleep(600)", name="m", version="1.0.0"),
        "go",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        lines = iter(process.stderr.readline, b"")
        pid = next(int(found[1]) for line in lines if (found := re.search(rb'module:start .*"pid":(\d+)', line)))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        list(lines)
        assert process.wait(60) == 128 + signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def on_a_terminal(*words):
    """Run the command with a terminal as stdout and stderr, and give what it writes there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    shown = b""
    with subprocess.Popen([*COMMAND, "--trusted", *words], stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


HOSTILE = "[bold]a[/bold] :smile: \x1b]0;owned\x07\x9b31m\u202e\nnext"
SCHEMA = {
    "description": HOSTILE,
    "required": ["text", HOSTILE],
    "properties": {
        "text": {"type": "string", "description": "where to look"},
        "n": {"enum": [1, 2], "default": 1},
        HOSTILE: {},
        "odd": True,
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        **{f"more{n}": {} for n in range(100)},
    },
}


def described(**inputs):
    """Write the code of a `describe` with these inputs."""
    return f"reply({{**DESCRIPTION, 'inputs': {inputs!r}, 'outputs': { {op: {} for op in inputs}!r}}})"


def test_a_terminal_gets_a_page_of_the_ops_in_which_nothing_is_obeyed(traced, describe):
    code = described(find=SCHEMA, plain=True, none={"properties": 5})
    shown = on_a_terminal(describe("misbehaving.py", "m", "describe", code, name="m", version="1.0.0"))
    assert not set(re.sub(r"\x1b\[[\d;?]*[mhlK]", "", shown)) & set("\x1b\x07\x9b\u202e")
    page = plain(shown)
    assert "\nm 1.0.0 tool\n" in page
    assert "\nfind  [bold]a[/bold] :smile: \\x1b]0;owned\\x07\\x9b31m\\u202e\\nnext\n" in page
    assert re.search(r"\n    text +string +required +where to look *\n", page)
    assert re.search(r"\n    n +\[1,2] +default 1 *\n", page)
    assert re.search(r"\n    odd +any *\n", page)
    assert "… 5 more" in page


def test_the_page_has_the_capabilities_and_what_cannot_be_called(traced, describe):
    more = {
        "capabilities": ["x-a:b"],
        "flawed": {"odd": "its schema is none"},
        "inputs": {"go": {"properties": {"n": {}}}},
    }
    code = f"reply({{**DESCRIPTION, **{more!r}, 'outputs': {{'go': {{}}}}}})"
    file = describe("misbehaving.py", "m", "describe", code, name="m", version="1.0.0", capabilities=["x-a:b"])
    page = plain(on_a_terminal(file, "--grant-all"))
    assert "\nm 1.0.0 tool\ncapabilities: x-a:b\n" in page
    assert re.search(r"\ngo *\n    n +any *\n\nodd  cannot be called: its schema is none\n", page)


def test_a_terminal_gets_a_page_of_json_and_no_line_wider_than_it_is(traced, describe):
    shown = on_a_terminal(describe("echo.py"), "echo", json.dumps({"text": HOSTILE, "n": [1, "x" * 300]}))
    assert not set(re.sub(r"\x1b\[[\d;?]*[mhlK]", "", shown)) & set("\x1b\x07\x9b\u202e")
    result = plain(shown)[plain(shown).index("\n{\n") :]
    result = result[: result.index("\n}\n") + 2]
    assert json.loads(result) == {"text": HOSTILE, "n": [1, "x" * 300]}
    assert all(len(line) <= 120 for line in plain(shown).splitlines() if "✓" in line)


def test_a_large_result_comes_on_a_terminal_without_colours(traced, describe):
    shown = on_a_terminal(describe("echo.py"), "echo", json.dumps({"text": "x" * 110_000}), "--quiet")
    assert json.loads(shown) == {"text": "x" * 110_000}
    assert "\x1b" not in shown


def test_hostile_text_of_a_module_is_shown_and_not_obeyed(call, describe):
    error = {"code": "mine", "message": HOSTILE, "details": {HOSTILE: HOSTILE, "stderr": HOSTILE}}
    status, _, errors = call(describe("echo.py"), "fail", json.dumps(error))
    assert status == 1
    assert not set(errors) & set("\x1b\x07\x9b\u202e")
    assert "error: mine: [bold]a[/bold] :smile: \\x1b]0;owned\\x07\\x9b31m\\u202e" in errors
