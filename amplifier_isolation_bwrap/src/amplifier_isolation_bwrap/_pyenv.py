"""pyenv's shims: shell scripts that run the interpreter of the version that pyenv selects.

Owns finding that interpreter, from the files that pyenv reads. It does not run pyenv, which a sandbox does not have.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._search import Search

_HEAD = 1024
_FILE_MAX = 4096  # bytes of a file that selects versions
_VERSIONS_MAX = 16
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}\Z")


def resolve_shim(path: str, cwd: str, env: Mapping[str, str], search: Search, find: Callable[[str], str]) -> str:
    """Return the program that a shim would run; return any other path unchanged.

    ``find`` finds the program on another PATH, for the version ``system``. Raises ``Unreachable``.
    """
    shim = Path(path)
    if shim.parent.name != "shims":
        return path
    real = search.resolve(path).real
    if b"pyenv" not in search.read(real, _HEAD):
        return path
    root = shim.parent.parent
    wanted, file = _wanted(root, Path(cwd), env, search)
    for version in wanted:
        if version == "system":
            folders = env.get("PATH", os.defpath).split(":")
            return find(":".join(folder for folder in folders if Path(cwd, folder) != shim.parent))
        for name in _installed(root, version, search):
            program = str(root / "versions" / name / "bin" / shim.name)
            if search.is_program(program):
                search.resolve(program, file)
                return program
    versions = ", ".join(wanted)
    raise Unreachable(f"command {shim.name}: {path} is a shim of pyenv, and version {versions} has no such program")


def _wanted(root: Path, cwd: Path, env: Mapping[str, str], search: Search) -> tuple[list[str], str | None]:
    """List the selected versions: the variable's, those of the nearest ``.python-version``, or the global ones.

    And give the file that selects them, if it is one. What cannot be the name of a version is left out.
    """
    if named := env.get("PYENV_VERSION"):
        return _versions(named.split(":")), None
    for place in (*(folder / ".python-version" for folder in (cwd, *cwd.parents)), root / "version"):
        file = search.resolve(str(place)).real
        lines = search.read(file, _FILE_MAX).decode(errors="replace").splitlines()
        if names := [word for line in lines for word in line.partition("#")[0].split()]:
            return _versions(names), file
    return ["system"], None


def _versions(names: Sequence[str]) -> list[str]:
    return [name if _VERSION.match(name) else "(no name of a version)" for name in names[:_VERSIONS_MAX]]


def _installed(root: Path, version: str, search: Search) -> list[str]:
    """List the folders of a version, the newest first: `3.13` means each 3.13.x."""
    found = [name for name in search.names(f"{root}/versions") if name.startswith(f"{version}.")]
    return [version, *sorted(found, key=_numbers, reverse=True)]


def _numbers(name: str) -> list[int]:
    return [int(part) if part.isdecimal() else -1 for part in name.split(".")]
