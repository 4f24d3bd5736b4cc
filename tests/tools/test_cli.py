"""The command as a shell runs it."""

import importlib.metadata
import subprocess
import sys


def run(*words):
    command = [sys.executable, "-m", "amplifier_tools", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_its_version():
    version = importlib.metadata.version("amplifier-tools")
    assert run("--version") == (0, f"amplifier-kernel, version {version}\n", "")


def test_the_command_alone_says_how_it_is_used():
    status, _, said = run()
    assert status == 2
    assert said.startswith("Usage: amplifier-kernel")


def test_the_script_is_the_same_command():
    (script,) = importlib.metadata.distribution("amplifier-tools").entry_points
    assert script.name == "amplifier-kernel"
    assert script.load().name == "main"
