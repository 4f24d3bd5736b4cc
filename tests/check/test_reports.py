"""What the command prints, what it writes for machines, and its exit status."""

import json
import re
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from tests.check.conftest import EXAMPLES, FLAWED, described
from tests.conftest import missing_here

from amplifier_tools._cli import main

pytestmark = pytest.mark.newest

OPS = ["--op", EXAMPLES["count"]]


def flawed(flaw="none", **fields):
    return described({"type": "stdio", "command": [sys.executable, FLAWED, flaw]}, **fields)


def test_a_finding_says_all_that_an_author_needs(over_stdio):
    checked = over_stdio("exits-on-op", *OPS)
    assert checked.finding("STDIO-10") == {
        "id": "STDIO-10",
        "section": "3",
        "level": "MUST",
        "text": "a module runs until its stdin ends",
        "problem": "the module went away: exit code 3",
        "op": None,
        "during": "op count",
        "line": None,
        "stderr": "Traceback: out of luck\n",
        "times": 1,
    }
    shown = checked.text.partition("STDIO-10")[2].splitlines()
    assert shown[:5] == [
        " MUST a module runs until its stdin ends (PROTOCOL.md, section 3)",
        "  the module went away: exit code 3",
        "  asked: op count",
        "  stderr:",
        "    Traceback: out of luck",
    ]


def test_a_finding_has_the_line_that_shows_it(over_stdio):
    finding = over_stdio("noise-text", *OPS).finding("STDIO-01")
    assert finding["line"] == "counting…"
    assert finding["times"] > 16


def test_after_a_dead_health_nothing_is_asked(over_stdio):
    checked = over_stdio("health-dead", *OPS, "--timeout", "0.5")
    assert checked.report["stopped"] == "health got no answer, so nothing else was asked"
    assert checked.report["runs"] == {}
    assert {rule["status"] for rule in checked.report["requirements"]} == {"broken", "skipped"}
    assert "FLAWED: 0 rules held, 1 broken" in checked.text


def test_it_says_how_often_an_op_ran(over_stdio):
    checked = over_stdio("none", *OPS, "--op", EXAMPLES["fail"])
    assert checked.report["runs"] == {"count": 9, "fail": 8}
    assert "\nops ran  count 9 times, fail 8 times\n" in checked.text


@pytest.mark.parametrize(("words", "limits", "runs"), [(["--at-once", "0"], {}, 2), ([], {"concurrency": 1}, 2)])
def test_no_more_requests_are_sent_at_once_than_is_asked_for_or_allowed(over_stdio, words, limits, runs):
    checked = over_stdio("none", *OPS, *words, limits=limits)
    assert checked.report["runs"] == {"count": runs}
    assert {rule["id"]: rule["status"] for rule in checked.report["requirements"]}["OP-06"] == "skipped"


def test_an_op_without_an_example_does_not_run(over_stdio):
    checked = over_stdio("none")
    assert checked.report["runs"] == {}
    assert checked.status == 0
    assert "\nops ran  none: see --op\n" in checked.text


def test_a_rule_that_should_be_kept_is_a_flaw_if_that_is_asked_for(over_stdio):
    assert over_stdio("args-unchecked", *OPS).status == 0
    assert over_stdio("args-unchecked", *OPS, "--strict").status == 1


def test_every_rule_has_a_line_if_that_is_asked_for(over_stdio):
    checked = over_stdio("describe-name", "-v")
    for rule in checked.report["requirements"]:
        assert re.search(
            rf"^{rule['status']} +{rule['id']} +{rule['level']} +{re.escape(rule['text'])}$", checked.text, re.MULTILINE
        )


def test_what_a_module_writes_commands_no_terminal(check):
    code = r"import sys; sys.stdout.write('\x1b[31mred\n'); sys.stdout.flush(); sys.exit('\x1b]0;title\x07 [bold]')"
    transport = {"type": "stdio", "command": [sys.executable, "-c", code]}
    told = {"name": "red", "kind": "tool", "capabilities": [], "transport": transport}
    checked = check(told, "--trusted")
    assert "\x1b" not in checked.text
    assert "line: \\x1b[31mred" in checked.text
    assert "\\x1b]0;title\\x07 [bold]" in checked.text


def test_the_report_as_junit(over_stdio, tmp_path):
    file = tmp_path / "report.xml"
    checked = over_stdio("args-unchecked", *OPS, "--junit", str(file))
    suite = ET.parse(file).getroot()
    rules = len(checked.report["requirements"])
    skipped = sum(rule["status"] == "skipped" for rule in checked.report["requirements"])
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": str(rules), "failures": "0", "skipped": str(skipped),
    }  # fmt: skip
    over_stdio("args-unchecked", *OPS, "--strict", "--junit", str(file))
    (failure,) = ET.parse(file).getroot().iter("failure")
    assert failure.get("type") == "SHOULD"
    assert failure.text
    assert failure.text.startswith("OP-05 SHOULD args that do not fit are bad_request (PROTOCOL.md, section 5)\n")


def test_junit_has_a_failure_for_a_check_that_stopped(over_stdio, tmp_path):
    over_stdio("health-exits", "--junit", str(tmp_path / "report.xml"))
    over_stdio("exits", "--junit", str(tmp_path / "report.xml"))
    failures = [each.get("message") for each in ET.parse(tmp_path / "report.xml").getroot().iter("failure")]
    assert failures == ["the module went away: exit code 3", "health got no answer, so nothing else was asked"]


def run(*words, **options):
    return CliRunner().invoke(main, ["check", *words], catch_exceptions=False, **options)


@pytest.fixture
def file(tmp_path):
    def write(told):
        path = tmp_path / "descriptor.json"
        path.write_text(json.dumps(told))
        return str(path)

    return write


def test_a_report_on_stdout_is_alone_there(file):
    done = run(file(flawed()), "--trusted", "--json", "-")
    assert json.loads(done.stdout)["verdict"] == "sound"
    assert "SOUND: " in done.stderr
    done = run(file(flawed()), "--trusted", "--junit", "-")
    assert ET.fromstring(done.stdout).tag == "testsuite"


def test_what_could_not_be_run_is_told_apart(file, tmp_path):
    transport = {"type": "stdio", "command": ["no-such-command-here"]}
    cases = {
        "missing.json": "cannot be read",
        file(described(transport)): "no-such-command-here",
    }
    for path, why in cases.items():
        done = run(path, "--trusted")
        assert done.exit_code == 2
        assert re.match(rf"amplifier-kernel check: could not be run: .*{why}", done.stderr)
    assert run(file(described({"type": "http", "url": "http://127.0.0.1:9"}))).exit_code == 2
    assert run(file(described({"type": "nonsense"}))).exit_code == 2
    done = run(file(flawed()), "--trusted", "--json", str(tmp_path / "missing" / "report.json"))
    assert done.exit_code == 2
    assert "No such file" in done.stderr


ONCE = """#!{python}
import json, os, sys
os.unlink(sys.argv[0])
told = {{"name": "once", "kind": "tool", "capabilities": [], "inputs": {{}}, "outputs": {{}}}}
for line in sys.stdin:
    request = json.loads(line)
    if request.get("method") in ("health", "describe"):
        result = told if request["method"] == "describe" else {{"status": "ok"}}
        print(json.dumps({{"id": request["id"], "ok": True, "result": result}}), flush=True)
"""


def test_a_module_that_cannot_be_started_again_could_not_be_checked(file, tmp_path):
    program = tmp_path / "once.py"
    program.write_text(ONCE.format(python=sys.executable))
    program.chmod(0o700)
    told = {"name": "once", "kind": "tool", "capabilities": []}
    descriptor = file({**told, "transport": {"type": "stdio", "command": [str(program)]}})
    done = run(descriptor, "--trusted", "--op", "run={}")
    assert done.exit_code == 2
    assert "once.py" in done.stderr


@pytest.mark.newest  # it waits, and that is the same on each Python
def test_several_waits_take_the_time_of_one(over_stdio):
    silent = [word for _ in range(5) for word in OPS]
    checked = over_stdio("example-silent", *silent, "--timeout", "4")
    assert checked.ids == ["MSG-01"]
    assert checked.finding("MSG-01")["times"] == 5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("count", "expected NAME=JSON or NAME=JSON=CODE"),
        ("={}", "expected NAME=JSON or NAME=JSON=CODE"),
        ("count={", "count: expected JSON: "),
        ('count={"a": NaN}', "count: expected JSON: "),
        ("count=[]", "count: expected an object of args, got list"),
        ("count={} bad_request", "count: expected =CODE, or nothing, after the JSON, got ' bad_request'"),
    ],
)
def test_an_op_that_cannot_be_read_is_refused_in_one_line(file, given, said):
    done = run(file(flawed()), "--op", given)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_module_is_confined_unless_it_is_trusted(file, need):
    need("bwrap")
    code = "import json, sys\nfor line in sys.stdin:\n request = json.loads(line)\n"
    code += " reply = {'ok': True, 'result': {'status': 'ok'}}\n"
    code += " if 'id' in request: print(json.dumps({'id': request['id'], **reply}), flush=True)"
    transport = {"type": "stdio", "command": ["/usr/bin/env", "python3", "-c", code]}
    told = {"name": "small", "kind": "tool", "capabilities": [], "transport": transport}
    done = run(file(told), "--isolation", "bwrap")
    if done.exit_code == 2:
        missing_here(done.stderr)
    assert "runs as  confined by bwrap to the capabilities that it declares" in done.stdout
    told["capabilities"] = ["net:connect:localhost:443"]
    done = run(file(told))
    assert done.exit_code == 2
    assert "bwrap cannot enforce net:connect:localhost:443 (this machine is meant by its address" in done.stderr


def test_an_isolation_that_is_not_installed_is_named(file):
    done = run(file(flawed()), "--isolation", "nonsense")
    assert done.exit_code == 2
    assert "nonsense" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a console has its own way to interrupt")
def test_an_interrupt_ends_the_processes(file, traced, tmp_path):
    code = "import time; open('started', 'w').close(); time.sleep(60)"
    transport = {"type": "stdio", "command": [sys.executable, "-c", code]}
    command = [sys.executable, "-m", "amplifier_tools", "check", file(described(transport)), "--trusted"]
    with subprocess.Popen([*command, "--timeout", "60"]) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_the_command_line_is_the_same(file):
    command = [sys.executable, "-m", "amplifier_tools", "check", file(flawed("describe-name")), "--trusted"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DESCRIBE-02 MUST name, kind and version are those of the descriptor" in done.stdout
