"""Builds the distributions, installs them into fresh environments, and imports them there, as a user does.

The tests need the registry. They are marked `packages`: the nox session of that name runs them, on one Python, and the
session `tests` leaves them out.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packages

LOAD_EVERYTHING = """
import importlib.metadata, sys
print(__import__(sys.argv[1]).__file__)
for point in importlib.metadata.distribution(sys.argv[2]).entry_points:
    if point.group != "pytest11":  # pytest alone loads it
        point.load()
"""
READ_PROTOCOL = """
import sys
from importlib.resources import files
sys.stdout.buffer.write((files("amplifier_core") / "PROTOCOL.md").read_bytes())
"""
REFUSE = """
from amplifier_core.hookspecs import NotJson, decode_message
try:
    decode_message(b'{"id":1}')
except NotJson:
    print("refused")
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel_of(wheels: Path, project: dict) -> Path:
    return wheels / f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"


def test_what_is_built_checks_clean(wheels, projects):
    built = sorted(wheels.iterdir())
    assert len(built) == 2 * len(projects)
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    run(sys.executable, "-m", "check_wheel_contents", *wheels.glob("*.whl"))


def test_a_wheel_holds_the_whole_package_and_nothing_else(folder, project, wheels):
    sources = {path.relative_to(folder / "src") for path in (folder / "src").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel_of(wheels, project)) as wheel:
        packaged = set(map(Path, wheel.namelist()))
    information = {path for path in packaged if path.parts[0].endswith(".dist-info")}
    beside = {Path(folder.name, path.name) for path in folder.glob("PROTOCOL.md")}  # for authors, beside the code
    assert packaged - information == {path for path in sources if path.suffix != ".pyc"} | beside


def test_an_sdist_holds_what_a_reader_needs(project, wheels):
    name = wheel_of(wheels, project).name.removesuffix("-py3-none-any.whl")
    with tarfile.open(wheels / f"{name}.tar.gz") as sdist:
        assert {f"{name}/{each}" for each in ("README.md", "CHANGELOG.md", "LICENSE")} <= set(sdist.getnames())


@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
def test_each_installs_alone_and_imports(folder, project, environment, resolution):
    """With the newest versions, and with the oldest of its own requirements."""
    python = environment(project["name"], *project["dependencies"], resolution=resolution)
    imported = Path(run(python, "-I", "-c", LOAD_EVERYTHING, folder.name, project["name"]).splitlines()[0])
    assert imported.is_relative_to(python.parents[1])
    if folder.name == "amplifier_core":  # older codecs raise errors of other classes
        assert run(python, "-I", "-c", REFUSE).split() == ["refused"]


def test_an_installed_kernel_has_the_protocol_that_it_speaks(environment, root):
    python = environment("amplifier-kernel")
    read = subprocess.run([python, "-I", "-c", READ_PROTOCOL], capture_output=True, check=True)
    assert read.stdout == (root / "amplifier_core" / "PROTOCOL.md").read_bytes()


def test_kernel_and_stdio_bring_no_httpx(environment):
    python = environment("amplifier-kernel", "amplifier-transport-stdio")
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    installed = run(python, "-I", "-c", code).split()
    assert "amplifier-transport-stdio" in installed
    assert "httpx" not in installed
