"""The fixtures of the tests of the repository itself: the distributions, as sources and as they are built."""

import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("amplifier_*/pyproject.toml"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def committed() -> list[Path]:
    """Every file of the repository, and every new file that is not ignored."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request) -> Path:
    """The folder of a distribution, named like the package in it. A test that uses it runs once for each."""
    return request.param


@pytest.fixture(scope="session")
def projects() -> dict[str, dict]:
    """The [project] table of every distribution, by the name of its folder."""
    documents = {folder.name: (folder / "pyproject.toml").read_text("utf-8") for folder in FOLDERS}
    return {name: tomllib.loads(document)["project"] for name, document in documents.items()}


@pytest.fixture
def project(folder, projects) -> dict:
    return projects[folder.name]


@pytest.fixture(scope="session")
def uv() -> Callable[..., None]:
    """Run uv with the given arguments; the dependency group `packages` installs it."""
    from uv import find_uv_bin  # noqa: PLC0415  absent where these tests are not selected

    def run(*arguments: str | Path) -> None:
        subprocess.run([find_uv_bin(), *arguments], cwd=ROOT, check=True)

    return run


@pytest.fixture(scope="session")
def wheels(uv, tmp_path_factory) -> Path:
    """A folder of fresh wheels of all distributions, beside the sdists that they were built from."""
    built = tmp_path_factory.mktemp("wheels")
    uv("build", "--quiet", "--all-packages", "--no-create-gitignore", "--out-dir", built)
    return built


@pytest.fixture
def environment(uv, wheels, tmp_path) -> Callable[..., Path]:
    """Install the given requirements into a fresh environment, and return its interpreter.

    Our distributions come only from `wheels`, everything that they depend on from the registry.
    """
    ours = tmp_path / "ours.txt"
    ours.write_text("".join(f"{wheel.name.split('-')[0]} @ {wheel.as_uri()}\n" for wheel in wheels.glob("*.whl")))

    def install(*requirements: str | Path, resolution: str = "highest") -> Path:
        home = tmp_path / "environment"
        python = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)})) / "python"
        uv("venv", "--quiet", "--python", sys.executable, home)
        options = ["--quiet", "--python", python, "--constraint", ours, f"--resolution={resolution}"]
        uv("pip", "install", *options, *requirements)
        return python

    return install
