"""The conformance check, on modules in several languages and on some that do not conform."""

import subprocess
import sys
from pathlib import Path

import pytest

from amplifier_core import Forbidden, ModuleDescriptor, Unreachable, load_descriptor
from amplifier_core.hookspecs import Host
from amplifier_core.testing import Example, check_module, confine, open_connection

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "modules"


def problems(checks):
    return {check.name: check.problem for check in checks if check.problem}


@pytest.mark.parametrize("file", ["echo.py", "echo.mjs", "echo.sh", "echo.pl"])
async def test_our_own_modules_conform(module, need, file):
    need({"mjs": "node", "pl": "perl"}.get(file.rpartition(".")[2], "sh"))
    checks = await check_module(module(file), {"echo": {"text": "ü"}})
    assert problems(checks) == {}
    assert len(checks) == 6


async def test_the_examples_conform():
    descriptor = load_descriptor(EXAMPLES / "wordcount-stdio.json")
    assert problems(await check_module(descriptor, {"count": {"text": "a b"}})) == {}


async def test_a_module_over_http_is_checked_too():
    command = [sys.executable, str(EXAMPLES / "wordcount_http.py")]
    service = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert service.stdout
    url = service.stdout.readline().decode().split()[-1]
    told = {"name": "wordcount-http", "kind": "tool", "capabilities": ["fs:read:../.."]}
    descriptor = ModuleDescriptor.from_mapping({**told, "transport": {"type": "http", "url": url}}, base=EXAMPLES)
    assert problems(await check_module(descriptor, {"count": {"text": "a b"}})) == {}
    service.communicate()


BAD = """
import json, sys
for line in sys.stdin:
    r = json.loads(line)
    if "id" not in r:
        continue
    told = {"name": "other", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
    if r["method"] == "invoke" and r["params"]["op"] == "hangs":
        continue
    answers = {"health": {"status": "ill"}, "describe": told, "invoke": 1}
    print(json.dumps({"id": r["id"], "ok": True, "result": answers[r["method"]]}), flush=True)
"""


async def test_each_broken_rule_is_reported_in_one_line():
    transport = {"type": "stdio", "command": [sys.executable, "-c", BAD]}
    descriptor = ModuleDescriptor.from_mapping(
        {"name": "bad", "kind": "tool", "capabilities": [], "transport": transport}
    )
    found = problems(await check_module(descriptor, {"hangs": {}}, seconds=0.5))
    assert found == {
        "health answers {'status': 'ok'}": "got {'status': 'ill'}",
        "describe matches the descriptor": "internal: bad: describe: name: descriptor says 'bad', got 'other'",
        "an unknown op is unsupported_op": "op 'no.such-op' answered 1",
        "op hangs answers its example": "no answer within 0.5 s",
        "op hangs answers 16 at once": "no answer within 0.5 s",
    }


async def test_a_problem_has_what_the_module_said_meanwhile():
    code = BAD.replace(
        "        continue\n    answers", "        print('asked', flush=True)\n        continue\n    answers"
    )
    code = code.replace("    answers =", "    if r['method'] == 'describe': sys.exit('not today\\x1b')\n    answers =")
    transport = {"type": "stdio", "command": [sys.executable, "-c", code]}
    fields = {"name": "bad", "kind": "tool", "capabilities": [], "transport": transport}
    found = problems(await check_module(ModuleDescriptor.from_mapping(fields), {"hangs": {}}, seconds=0.5))
    assert found["describe matches the descriptor"] == (
        "unreachable: the module went away: exit code 1; its stderr ends with 'not today\\x1b'"
    )
    assert found["op hangs answers its example"] == (
        "no answer within 0.5 s; its stdout had a line that is no reply: 'asked'"
    )


async def test_a_module_that_can_not_be_started_is_an_error():
    transport = {"type": "stdio", "command": ["no-such-command-here"]}
    fields = {"name": "bad", "kind": "tool", "capabilities": [], "transport": transport}
    with pytest.raises(Unreachable, match="no-such-command-here"):
        await check_module(ModuleDescriptor.from_mapping(fields), {})


async def test_a_module_that_asks_for_system_calls_conforms(module):
    descriptor = module("caller.py", kind="orchestrator", capabilities=["sys:mounts"])
    examples: dict = {
        "call": {"syscalls": [{"name": "mounts"}]},
        "emit": {"events": []},
        "raw": {"reply": {"pending": {}}},
    }
    found = problems(await check_module(descriptor, examples))
    assert list(found) == ["an unknown op is unsupported_op", "op raw answers its example", "op raw answers 16 at once"]


async def test_a_description_that_leaves_out_an_op_is_reported(module):
    found = problems(await check_module(module("echo.sh"), {"shout": {}}))
    assert found["describe matches the descriptor"] == "inputs and outputs do not name shout"


COUNTS = """
import json, pathlib, sys
runs = pathlib.Path("runs")
told = {"name": "counts", "kind": "tool", "version": "1.0.0", "capabilities": []}
told |= {"inputs": {"run": True, "refuse": True}, "outputs": {"run": True, "refuse": True}}
for line in sys.stdin:
    r = json.loads(line)
    answer = {"ok": True, "result": {"health": {"status": "ok"}, "describe": told}.get(r["method"])}
    if r["method"] == "invoke" and r["params"]["op"] == "run":
        runs.write_text((runs.read_text() if runs.exists() else "") + "x")
    elif r["method"] == "invoke":
        code = {"refuse": "out_of_ink"}.get(r["params"]["op"], "unsupported_op")
        answer = {"ok": False, "error": {"code": code, "message": "no", "details": {"colour": "cyan"}}}
    if r["method"] == "health" and "dead" in sys.argv:
        sys.exit("no head for it")
    print(json.dumps({"id": r["id"], **answer}), flush=True)
"""


@pytest.fixture
def counts(tmp_path):
    """Describe a module that notes each run of an op in a file of its folder."""

    def describe(*words, **fields):
        transport = {"type": "stdio", "command": [sys.executable, "-c", COUNTS, *words], "cwd": str(tmp_path)}
        fields = {"name": "counts", "kind": "tool", "capabilities": [], "transport": transport, **fields}
        return ModuleDescriptor.from_mapping(fields)

    return describe


@pytest.mark.parametrize(
    ("given", "limits", "runs"),
    [({}, {}, 17), ({"at_once": 3}, {}, 4), ({"at_once": 0}, {}, 1), ({}, {"concurrency": 4}, 5)],
    ids=["by default", "as asked for", "once", "as the module allows"],
)
async def test_an_example_runs_as_often_as_is_said(counts, tmp_path, given, limits, runs):
    checks = await check_module(counts(limits=limits), {"run": {}}, **given)
    assert problems(checks) == {}
    assert len((tmp_path / "runs").read_text()) == runs


async def test_a_module_that_takes_one_request_at_a_time_is_asked_so(counts, tmp_path):
    checks = await check_module(counts(limits={"concurrency": 1}), {"run": {}})
    assert [check.id for check in checks] == ["HEALTH-01", "DESCRIBE-02", "OP-01", "MSG-05", "OP-02"]
    assert (tmp_path / "runs").read_text() == "x"


async def test_an_example_may_expect_an_error(counts):
    assert problems(await check_module(counts(), [Example("refuse", {}, "out_of_ink")])) == {}
    found = await check_module(counts(), [Example("refuse", {}), Example("run", {}, "out_of_ink")], at_once=0)
    assert problems(found) == {
        "op refuse answers its example": "out_of_ink: no",
        "op run with the error out_of_ink answers its example": "expected the error out_of_ink, got None",
    }
    assert [check.details for check in found if check.problem] == [{"colour": "cyan"}, {}]


async def test_nothing_is_asked_after_a_dead_health(counts):
    (health,) = await check_module(counts("dead"), {"run": {}})
    assert health.problem == "unreachable: the module went away: exit code 1; its stderr ends with 'no head for it'"
    assert health.details["stderr"] == "no head for it\n"
    assert health.id == "HEALTH-01"


async def test_a_system_call_that_is_not_declared_is_reported(module):
    calls = [{"name": name, "args": {"path": "/mnt/tools"}} for name in ("mounts", "nonsense")]
    examples = [Example("call", {"syscalls": [call]}) for call in calls]
    checks = await check_module(module("caller.py", kind="orchestrator"), examples, at_once=0)
    assert [check.problem for check in checks if check.id == "OP-02"] == [
        "internal: pending: the descriptor does not declare sys:mounts:/mnt/tools",
        "",
    ]


async def test_a_check_of_ones_own_starts_a_module_as_the_kernel_does(module):
    descriptor = module("echo.py")
    async with Host() as host:
        connection = open_connection(descriptor, host)
        with pytest.raises(Forbidden, match="the embedder set isolation=False"):
            await confine(connection.launch(), descriptor, isolation=False)


async def test_a_schema_that_is_none_is_reported(tmp_path):
    code = BAD.replace('"name": "other"', '"name": "bad"').replace('"inputs": {}', '"inputs": {"op": {"type": "text"}}')
    transport = {"type": "stdio", "command": [sys.executable, "-c", code]}
    fields = {"name": "bad", "kind": "tool", "capabilities": [], "transport": transport}
    found = problems(await check_module(ModuleDescriptor.from_mapping(fields), {}, seconds=20))
    assert found["describe matches the descriptor"] == (
        "the schema of 'op': inputs: $.type: expected one of array, boolean, integer, null, number, object, string, "
        "or a list of them, got 'text'"
    )
