"""The conformance check, on modules in several languages and on some that do not conform."""

import subprocess
import sys
from pathlib import Path

import pytest

from amplifier_core import ModuleDescriptor, Unreachable, load_descriptor
from amplifier_core.testing import check_module

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
