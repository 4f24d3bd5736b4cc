"""Modules without a flaw pass: those of the examples, of the tests, of the kit, and in eight languages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import MODULES, missing_here
from tests.polyglot.toolchains import LANGUAGES, ToolchainMissing, prepare

pytestmark = pytest.mark.newest

ROOT = Path(__file__).parents[2]
ASKED = {"action": "invoke", "path": "/mnt/tools/files", "name": "files", "kind": "tool", "op": "list"}
EVENT = {"id": "evt_1", "ts": 1.0, "event": "policy:request", "component": "kernel"}
EVENT |= {"data": {**ASKED, "capabilities": [], "unenforced": []}}
AGENT = {
    "context": {},
    "files": {"list": {"path": "."}},
    "grep": {"search": {"pattern": "Perl"}},
    "note": {"write": {"name": "a.md", "text": "ü"}},
    "orchestrator": {"run": {"goal": "anything"}},
    "policy": {"on_event": {"event": EVENT}},
    "provider_script": {"complete": {"messages": [{"role": "user", "content": "Anything."}]}},
}
MODULE = """
from amplifier_module import Context, Module, ModuleError

module = Module("words", version="1.0.0", kind="orchestrator", capabilities=["sys:mounts"])


@module.op
def count(text: str) -> dict[str, int]:
    "Count words."
    return {"words": len(text.split())}


@module.op
def stream(text: str, context: Context) -> int:
    for word in text.split():
        context.chunk(word)
    return len(text)


@module.op
async def mounted(context: Context) -> list[str]:
    return [each["path"] for each in await context.mounts()]


@module.op
async def many(context: Context) -> int:
    refused = 0
    for _ in range(6):
        try:
            await context.mounts()
        except ModuleError:
            refused += 1
    return refused


module.run()
"""


def ops(examples):
    return [word for op, args in examples.items() for word in ("--op", f"{op}={json.dumps(args)}")]


@pytest.fixture
def this_python(monkeypatch):
    """Let `python3` be the Python of the tests, which has the kit."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def sound(checked):
    assert checked.report["findings"] == []
    assert checked.status == 0
    return checked.report


@pytest.mark.parametrize("name", AGENT)
def test_the_modules_of_the_agent_are_sound(check, need, this_python, tmp_path, name):
    need({"orchestrator": "node", "grep": "perl"}.get(name, "sh"))
    folder = shutil.copytree(ROOT / "examples" / "agent", tmp_path / "agent")
    (folder / "notes").mkdir(exist_ok=True)
    sound(check(folder / f"{name}.json", *ops(AGENT[name]), "--trusted", "--strict"))


def test_the_wordcount_of_the_examples_is_sound(check, this_python):
    words = ops({"count": {"text": "a b"}})
    sound(check(ROOT / "examples/modules/wordcount-stdio.json", *words, "--trusted", "--strict"))


def test_the_wordcount_over_http_is_sound(check):
    folder = ROOT / "examples" / "modules"
    command = [sys.executable, str(folder / "wordcount_http.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout
        url = service.stdout.readline().decode().split()[-1]
        told = json.loads((folder / "wordcount-http.json").read_text())
        sound(check({**told, "transport": {"type": "http", "url": url}}, *ops({"count": {"text": "a"}}), "--strict"))


@pytest.mark.parametrize("file", ["echo.py", "echo.mjs", "echo.pl", "echo.sh"])
def test_the_modules_of_the_tests_are_sound(check, need, file):
    interpreter = {"mjs": "node", "sh": "sh", "pl": "perl", "py": sys.executable}[file.rpartition(".")[2]]
    need(interpreter)
    transport = {"type": "stdio", "command": [interpreter, str(MODULES / file)]}
    told = {"name": "echo", "kind": "tool", "capabilities": [], "transport": transport}
    sound(check(told, *ops({"echo": {"text": "ü"}}), "--trusted", "--strict"))


def test_a_module_of_the_kit_is_sound(check, tmp_path):
    (tmp_path / "words.py").write_text(MODULE)
    told = subprocess.run([sys.executable, tmp_path / "words.py", "--descriptor"], capture_output=True, check=True)
    (tmp_path / "words.json").write_bytes(told.stdout)
    examples = {"count": {"text": "a b"}, "stream": {"text": "a b"}, "mounted": {}, "many": {}}
    refused = ["--op", 'count={"text": 5}=bad_request']
    report = sound(check(tmp_path / "words.json", *ops(examples), *refused, "--trusted", "--strict"))
    skipped = {rule["id"] for rule in report["requirements"] if rule["status"] == "skipped"}
    assert {name.partition("-")[0] for name in skipped} == {"CANCEL", "CONN", "EVENT", "HOOK", "HTTP"}


@pytest.mark.newest  # the modules are the same on each Python
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_module_in_each_language_is_sound(check, this_python, language):
    try:
        file = prepare(language)
    except ToolchainMissing as error:
        missing_here(str(error))
        raise
    report = {"tool": "/mnt/orchestrators/words", "texts": ["a b"]}
    words = ops({"count": {"text": "a b"}, "tell": {"text": "a b"}, "report": report})
    sound(check(file, *words, "--trusted", "--strict"))


def test_a_server_of_mcp_is_sound(check):
    transport = {"type": "mcp", "command": [sys.executable, "-m", "mcp_server_time", "--local-timezone=Etc/UTC"]}
    told = {"name": "time", "kind": "tool", "transport": transport}
    told["capabilities"] = ["x-mcp:tool:get_current_time", "x-mcp:tool:convert_time"]
    report = sound(check(told, *ops({"get_current_time": {"timezone": "Europe/Berlin"}}), "--trusted", "--strict"))
    assert report["runs_as"] == "trusted: an ordinary process, as --trusted says"
