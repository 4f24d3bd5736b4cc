"""The README of the kit does what it says."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "amplifier_module" / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_tool_in_six_lines_answers_the_shell(tmp_path):
    ((name, program),) = ((name, text) for _, name, text in FENCE.findall(README) if name)
    assert len([line for line in program.splitlines() if line]) == 6
    (tmp_path / name).write_text(program, "utf-8")
    (told,) = (text for language, _, text in FENCE.findall(README) if language == "console")
    first, second, answer = (line.removeprefix("$ ") for line in told.splitlines())
    for line, printed in ((first, ""), (second, f"{answer}\n")):
        command = line.replace("python3", f"'{sys.executable}'")
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == printed
    assert '"name": "wordcount"' in (tmp_path / "wordcount.json").read_text()


def test_every_example_is_python():
    for language, _, text in FENCE.findall(README):
        if language == "python":
            compile(text + ("    ..." if text.rstrip().endswith('"""') else ""), "README.md", "exec")
