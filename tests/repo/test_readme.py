import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_readmes_example_does_what_it_says(tmp_path):
    told = []
    for language, name, text in FENCE.findall((ROOT / "README.md").read_text("utf-8")):
        if name:
            (tmp_path / name).write_text(text, "utf-8")
        if language == "console":
            told.append(text)
    assert told
    for text in told:
        command, _, expected = text.partition("\n")
        words = [sys.executable if word == "python3" else word for word in command.removeprefix("$ ").split()]
        assert subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == expected
    assert (tmp_path / "run.jsonl").stat().st_size > 0


def test_the_readme_names_every_distribution():
    text = (ROOT / "README.md").read_text("utf-8")
    for project in ROOT.glob("amplifier_*/pyproject.toml"):
        assert f"({project.parent.name}/README.md)" in text


def test_every_relative_link_leads_somewhere():
    for file in [ROOT / "README.md", *ROOT.glob("amplifier_*/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file}: {target}"
