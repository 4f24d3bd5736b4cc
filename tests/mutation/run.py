"""Changes the gate, the framing and the bus in one place at a time, and checks that a test fails.

    python tests/mutation/run.py FOLDER

mutmut works in FOLDER, on a copy with all sources in one folder, as [tool.mutmut] in pyproject.toml says. Each mutant
that survives must be in SURVIVORS.md, with the reason, and each mutant in SURVIVORS.md must survive. With names of
mutants after FOLDER (`*_gate*`) it tries only those.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("SURVIVORS.md")
PROFILE = """# hypothesis draws the same examples each time, and does not shrink: a failure is enough
from hypothesis import Phase, settings

settings.register_profile("mutation", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutation")
"""


def main() -> int:
    """Run mutmut and compare."""
    folder, *names = sys.argv[1:]
    prepare(Path(folder))
    mutmut(folder, "run", *names)
    found = survivors(folder)
    known = explained(SURVIVORS.read_text())
    return report("survives, and is not in SURVIVORS.md", found - known) | (
        0 if names else report("does not survive any more", known - found)
    )


def prepare(folder: Path) -> None:
    """Copy the sources and the tests into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in ROOT.glob("amplifier_*/src/*"):
        shutil.copytree(source, folder / "src" / source.name)
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "conftest.py").write_text(PROFILE)


def mutmut(folder: str, *command: str) -> str:
    """Run mutmut and give its output. The progress of `run` goes to the terminal."""
    output = None if command[0] == "run" else subprocess.PIPE
    done = subprocess.run([sys.executable, "-m", "mutmut", *command], cwd=folder, stdout=output, text=True, check=True)
    return done.stdout or ""


def survivors(folder: str) -> set[tuple[str, str]]:
    """Give the function and the changed lines of each mutant that no test noticed or reached."""
    lines = re.findall(r"^\s*(\S+)__mutmut_(\d+): (survived|no tests)$", mutmut(folder, "results"), re.MULTILINE)
    found = set()
    for function, number, _ in lines:
        diff = mutmut(folder, "show", f"{function}__mutmut_{number}")
        changed = [line for line in diff.splitlines() if re.match(r"[-+](?![-+])", line)]
        found.add((re.sub(r"x_|xǁ|ǁ", ".", function).replace("..", "."), dedented(changed)))
    return found


def explained(text: str) -> set[tuple[str, str]]:
    """Read functions and changed lines from Markdown: a heading, then blocks of diffs, each with its reason."""
    found, function = set(), ""
    for heading, diff in re.findall(r"^## (\S+)|^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        function = heading or function
        if diff:
            found.add((function, diff))
    return found


def dedented(lines: list[str]) -> str:
    """Remove the spaces that all lines of a diff have after their signs."""
    spaces = min(len(line) - 1 - len(line[1:].lstrip()) for line in lines)
    return "".join(f"{line[0]}{line[1 + spaces :]}\n" for line in lines)


def report(what: str, mutants: set[tuple[str, str]]) -> int:
    """Print mutants as SURVIVORS.md has them, and say whether there are any."""
    for function, diff in sorted(mutants):
        print(f"{what}:\n\n## {function}\n\n```diff\n{diff}```\n")
    return bool(mutants)


if __name__ == "__main__":
    sys.exit(main())
