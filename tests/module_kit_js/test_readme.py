"""The README of the kit for Node does what it says, and its package says what the other distributions say."""

import json
import re
import subprocess

import pytest
from tests.module_kit_js.conftest import KIT, ROOT

pytestmark = pytest.mark.newest  # it is the same on each Python

README = (KIT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = re.compile(r"from '(ajv|@grpc)/")  # packages that only some programs need
PACKAGE = json.loads((KIT / "package.json").read_text("utf-8"))


@pytest.fixture
def project(tmp_path):
    """A folder in which the kit is installed."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "amplifier-module").symlink_to(KIT)
    return tmp_path


def test_the_tool_answers_the_shell(project, node):
    ((name, program),) = ((name, text) for _, name, text in FENCE.findall(README) if name)
    assert len([line for line in program.splitlines() if line]) == 5
    (project / name).write_text(program, "utf-8")
    (told,) = (text for language, _, text in FENCE.findall(README) if language == "console")
    first, second, answer = (line.removeprefix("$ ") for line in told.splitlines())
    for line, printed in ((first, ""), (second, f"{answer}\n")):
        command = re.sub(r"\bnode ", f"'{node}' ", line)
        done = subprocess.run(["sh", "-c", command], cwd=project, capture_output=True, text=True, check=True)
        assert done.stdout == printed
    assert '"name": "wordcount"' in (project / "wordcount.json").read_text()


def test_the_examples_are_modules_that_start(project, node):
    """All in one: each after the first has what those before it made."""
    texts = [text for language, name, text in FENCE.findall(README) if language == "js" and not OTHERS.search(text)]
    imports = {line for text in texts for line in text.splitlines() if line.startswith("import ")}
    body = "\n".join(text for text in texts).replace("\nmodule.run()\n", "\n")
    body = "\n".join(line for line in body.splitlines() if not line.startswith("import "))
    (project / "all.mjs").write_text("\n".join([*sorted(imports), body]), "utf-8")
    asked = b'{"id":1,"method":"invoke","params":{"op":"find","args":{"text":"a word or two","order":"sorted"}}}\n'
    done = subprocess.run([node, "all.mjs"], cwd=project, input=asked, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"id": 1, "ok": True, "result": ["word"]}


def test_the_readme_tells_the_keywords_that_are_checked(node):
    code = "import { KEYWORDS } from './lib/schema.js'; console.log(Object.keys(KEYWORDS).join(' '))"
    told = subprocess.run(
        [node, "--input-type=module", "-e", code], cwd=KIT, capture_output=True, text=True, check=True
    )
    _, _, listed = README.partition("The kit checks ")
    assert set(re.findall(r"`(\$?\w+)`", listed.partition("into the same schema")[0])) == set(told.stdout.split())


def test_its_units(node):
    """With the test runner of Node."""
    tests = KIT.parent / "tests" / "module_kit_js" / "schema.test.mjs"
    done = subprocess.run([node, "--test", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_package_is_one_of_the_distributions():
    assert f"[`amplifier-module` for Node]({KIT.name}/README.md)" in (ROOT / "README.md").read_text("utf-8")
    assert (KIT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    newest = re.search(r"^## \[(.+?)\]", (KIT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == PACKAGE["version"]
    assert "dependencies" not in PACKAGE
