import json
import os
import re
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLS = re.compile(r"pip install ([^`\n]+)")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_readmes_example_does_what_it_says(tmp_path):
    told = []
    for language, name, text in FENCE.findall((ROOT / "README.md").read_text("utf-8")):
        if name:
            (tmp_path / name).write_text(text, "utf-8")
        if language == "console":
            told.append(text)
    assert told
    check_console(told, tmp_path)
    assert (tmp_path / "run.jsonl").stat().st_size > 0
    (tmp_path / "wordcount_by_hand.py").replace(tmp_path / "wordcount.py")  # the same module, with what it adds
    descriptor = tmp_path / "wordcount.json"
    (limits,) = re.findall(r'`("limits": .*?)`', (ROOT / "README.md").read_text("utf-8"))
    descriptor.write_text(json.dumps(json.loads(descriptor.read_text("utf-8")) | json.loads(f"{{{limits}}}")), "utf-8")
    check_console(told, tmp_path)


def check_console(told, folder):
    """Run each command; its Python is the one that a module's `python3` finds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for text in told:
        command, _, expected = text.partition("\n")
        words = [sys.executable if word == "python3" else word for word in command.removeprefix("$ ").split()]
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout == expected


@pytest.mark.parametrize("task", ["quickstart", "tests"])
def test_the_readme_gives_the_command_of_a_first_task_in_full(task):
    assert f"\npython3 noxfile.py -s {task}\n" in (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"^def {task}\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)


def test_the_readme_names_every_task():
    text, noxfile = ((ROOT / name).read_text("utf-8") for name in ("README.md", "noxfile.py"))
    tasks = re.findall(r"^@nox.session.*\ndef (\w+)", noxfile, re.MULTILINE)
    assert tasks
    assert not [task for task in tasks if f"`{task.replace('_', '-')}`" not in text]


def test_the_readme_installs_folders_of_distributions():
    lines = INSTALLS.findall((ROOT / "README.md").read_text("utf-8"))
    installed = [name for line in lines for name in line.split()]
    assert {"./amplifier_core", "./amplifier_transport_stdio", "./amplifier_isolation_bwrap"} <= set(installed)
    for name in installed:
        assert name.startswith("./amplifier_")
        assert (ROOT / name / "pyproject.toml").is_file()


@pytest.mark.packages
def test_the_pip_lines_of_the_readme_install_what_they_name(uv, tmp_path):
    home = tmp_path / "environment"
    uv("venv", "--quiet", "--seed", "--python", sys.executable, home)
    python = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)})) / "python"
    for line in INSTALLS.findall((ROOT / "README.md").read_text("utf-8")):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *line.split()], cwd=ROOT, check=True)
    imports = "import amplifier_core, amplifier_module, amplifier_transport_stdio, amplifier_isolation_bwrap"
    subprocess.run([python, "-I", "-c", imports], check=True)


def test_the_readme_names_every_distribution():
    text = (ROOT / "README.md").read_text("utf-8")
    for project in ROOT.glob("amplifier_*/pyproject.toml"):
        assert f"({project.parent.name}/README.md)" in text


def test_every_relative_link_leads_somewhere():
    for file in [ROOT / "README.md", *ROOT.glob("amplifier_*/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file}: {target}"


def test_the_lines_of_the_protocol_are_what_a_module_says(tmp_path):
    """The module that README writes by hand gets the requests of section 3 of the protocol, and gives its replies."""
    readme, protocol = ((ROOT / name).read_text("utf-8") for name in ("README.md", "amplifier_core/PROTOCOL.md"))
    (program,) = (text for _, name, text in FENCE.findall(readme) if name == "wordcount_by_hand.py")
    (tmp_path / "wordcount.py").write_text(program, "utf-8")
    section = protocol.partition("## 3. STDIO JSON")[2].partition("## 4.")[0]
    asked, told = (re.findall(rf"^{arrow} (.+)$", section, re.MULTILINE) for arrow in "→←")
    command = [sys.executable, str(tmp_path / "wordcount.py")]
    answers = subprocess.run(
        command, input="".join(f"{line}\n" for line in asked), capture_output=True, text=True, check=True
    )
    replies = [json.loads(line) for line in told]
    assert [json.loads(line) for line in answers.stdout.splitlines()] == [each for each in replies if "ok" in each]


def test_what_the_protocol_asks_by_http_is_answered_so(tmp_path):
    """Section 4: a bare body for health and describe, one of the shapes for invoke."""
    modules = ROOT / "examples" / "modules"
    service = subprocess.Popen(
        [sys.executable, str(modules / "wordcount_http.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert service.stdout
    url = service.stdout.readline().decode().split()[-1]
    asked = {"op": "count", "args": {"text": "a b"}}
    answers = {}
    for method, params in (("health", {}), ("describe", {}), ("invoke", asked)):
        request = urllib.request.Request(f"{url}/{method}", json.dumps(params).encode(), method="POST")
        with urllib.request.urlopen(request) as response:
            answers[method] = json.load(response)
    service.communicate()
    assert answers["health"] == {"status": "ok"}
    assert answers["describe"]["name"] == "wordcount-http"
    assert answers["invoke"]["result"]["words"] == 2
