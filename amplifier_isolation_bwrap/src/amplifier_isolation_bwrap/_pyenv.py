"""pyenv's shims: shell scripts that run the interpreter of the version that pyenv selects.

Owns finding that interpreter, from the files that pyenv reads. It does not run pyenv, which a sandbox does not have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from amplifier_core import Unreachable

from ._paths import read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEAD = 1024


def resolve_shim(path: str, cwd: str, env: Mapping[str, str], search: Callable[[str], str]) -> str:
    """Return the program that a shim would run; return any other path unchanged.

    ``search`` finds the program on another PATH, for the version ``system``. Raises ``Unreachable``.
    """
    shim = Path(path)
    if shim.parent.name != "shims" or b"pyenv" not in read_head(path, _HEAD):
        return path
    root = shim.parent.parent
    wanted = _wanted(root, Path(cwd), env)
    for version in wanted:
        if version == "system":
            folders = env["PATH"].split(":")
            return search(":".join(folder for folder in folders if Path(folder) != shim.parent))
        for folder in _installed(root, version):
            if os.access(folder / "bin" / shim.name, os.X_OK):
                return str(folder / "bin" / shim.name)
    versions = ", ".join(wanted)
    raise Unreachable(f"command {shim.name}: {path} is a shim of pyenv, and version {versions} has no such program")


def _wanted(root: Path, cwd: Path, env: Mapping[str, str]) -> list[str]:
    """List the selected versions: the variable's, those of the nearest ``.python-version``, or the global ones."""
    if named := env.get("PYENV_VERSION"):
        return named.split(":")
    for file in (*(folder / ".python-version" for folder in (cwd, *cwd.parents)), root / "version"):
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        if names := [word for line in lines for word in line.partition("#")[0].split()]:
            return names
    return ["system"]


def _installed(root: Path, version: str) -> list[Path]:
    """List the folders of a version, the newest first: `3.13` means each 3.13.x."""
    if "/" in version or version.startswith("."):
        return []
    exact = root / "versions" / version
    return [exact, *sorted(root.glob(f"versions/{version}.*"), key=_numbers, reverse=True)]


def _numbers(folder: Path) -> list[int]:
    return [int(part) if part.isdecimal() else -1 for part in folder.name.split(".")]
