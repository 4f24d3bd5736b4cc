"""Each distribution stands alone, and what is committed works on any machine."""

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

# The patterns do not match themselves.
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|yarnpkg\.com|crates\.io|debian\.org|index[-]url")
MACHINE = re.compile(r"(?<![\w.$}])/(?:root|work|opt|home/\w+|Users/\w+)/|\.pyenv/versions/\d")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", "src/{package}/py.typed"])
def test_each_carries_its_own(folder, name):
    assert (folder / name.format(package=folder.name)).is_file()


def test_each_has_the_one_license(root, folder):
    assert (folder / "LICENSE").read_text() == (root / "LICENSE").read_text()


def test_the_newest_entry_of_the_changelog_is_the_version(folder, project):
    newest = re.search(r"^## \[(.+?)\]", (folder / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == project["version"]


def test_siblings_are_held_to_one_minor_version(project, projects):
    versions = {sibling["name"]: sibling["version"] for sibling in projects.values()}
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.name in versions:
            minor = int(versions[requirement.name].split(".")[1])
            assert requirement.specifier == SpecifierSet(f">=0.{minor},<0.{minor + 1}")


def test_none_depends_on_the_registrys_amplifier_core(committed):
    """There it is another project, with the same import name."""
    for file in (file for file in committed if file.name == "pyproject.toml"):
        project = tomllib.loads(file.read_text("utf-8")).get("project", {})
        groups = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
        names = {Requirement(each).name for group in groups for each in group}
        assert not names & {"amplifier-core", "amplifier_core"}, file


def test_the_tools_know_every_distribution(root, projects):
    tool = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]
    assert sorted(tool["coverage"]["run"]["source_pkgs"]) == sorted(projects)
    assert sorted(tool["importlinter"]["root_packages"]) == sorted(projects)
    assert set(tool["mypy"]["mypy_path"]) >= {f"{name}/src" for name in projects}


def test_importing_the_core_imports_no_transport():
    code = "import amplifier_core, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "amplifier_core" in loaded
    assert not [name for name in loaded if name.startswith(("amplifier_transport_", "httpx"))]


@pytest.mark.parametrize("pattern", [REGISTRY, MACHINE], ids=["registry", "machine"])
def test_no_committed_file_names_a_registry_or_a_place_on_one_machine(root, committed, pattern):
    found = [
        f"{file.relative_to(root)}:{number}: {line.strip()}"
        for file in committed
        for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_tasks_say_in_a_line_that_the_python_is_too_old(root):
    old = f"import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); runpy.run_path({str(root / 'noxfile.py')!r})"
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("noxfile.py: expected Python 3.11 or later, got ")
    assert done.stderr.count("\n") == 1
