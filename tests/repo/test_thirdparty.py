"""A distribution from outside, with its own transport and sink, needs only our wheels and public names."""

import ast
import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "thirdparty"
OUTSIDE = FOLDER / "amplifier-thirdparty-example"
DOORS = {"amplifier_core", "amplifier_core.hookspecs", "amplifier_transport_stdio"}


@pytest.mark.packages
def test_an_outside_distribution_is_installed_beside_the_kernel_and_used(uv, environment, tmp_path):
    elsewhere = shutil.copytree(OUTSIDE, tmp_path / "elsewhere")
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", elsewhere)
    python = environment("amplifier-kernel", "amplifier-transport-stdio", *(tmp_path / "dist").glob("*.whl"))
    logs = tmp_path / "logs"
    logs.mkdir()
    command = [python, "-I", "-W", "error", FOLDER / "use.py", logs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("source", sorted(OUTSIDE.rglob("*.py")), ids=lambda path: path.stem)
def test_it_imports_public_names_alone(source):
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        assert not isinstance(node, ast.Import) or not any(alias.name.startswith("amplifier") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("amplifier"):
            assert node.module in DOORS
            assert {alias.name for alias in node.names} <= set(importlib.import_module(str(node.module)).__all__)
