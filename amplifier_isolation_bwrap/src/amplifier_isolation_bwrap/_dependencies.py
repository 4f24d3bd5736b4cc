"""The dependencies of a command: its program, the interpreter of that, and the folders that these are installed in.

Owns the search: PATH, links, ``#!`` lines, pyenv's shims, virtual environments, libraries beside a program. It runs no
program to find out. A program in the system's own folders has no dependencies: every module sees these folders.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

from ._elf import find_libraries
from ._paths import is_pseudo, is_within, read_head, resolve
from ._pyenv import resolve_shim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._paths import SharedFolders

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
"""The folders of the system's programs and libraries: every module sees them."""

_BELOW_SYSTEM = tuple(f"{folder}/" for folder in SYSTEM)
_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "pyvenv.cfg")  # of an installation, beside other things
_SPECIAL = (("lib/jvm.cfg", "conf"), ("conda-meta", "ssl"))  # parts of a JDK and of a conda environment alone
_WHOLE = {*_PARTS, "include", "share", "man", "LICENSE", "README.md", "CHANGELOG.md"}
_WHOLE |= {".gitignore", ".lock", "CACHEDIR.TAG"}  # virtualenv and uv write these
_JDKS, _JDK_SETTINGS = "/usr/lib/jvm", "/etc/java*"  # Debian keeps a JDK's settings apart from it
_AT_HOME = ".local"  # its share/ holds what programs store for their user
_NESTED = 4  # an interpreter may be a script too, and the operating system follows as many
_SHEBANG_MAX = 256


def find_dependencies(command: Sequence[str], cwd: str, env: Mapping[str, str], shared: SharedFolders) -> Dependencies:
    """Find the dependencies of a command. Raises ``Unreachable`` if its program does not exist."""
    folder, name = os.path.split(_find(command[0], cwd, env))
    program = f"{resolve(folder).real}/{name}"  # a path with `..` may lead through folders that the sandbox lacks
    program = resolve(program).real if is_pseudo(program) else program  # /proc/self/exe is another program inside
    found = Dependencies(program, cwd, env, shared)
    found.add_program(program, _NESTED)
    return found


def is_system(path: str) -> bool:
    """Tell whether a real path is the system's."""
    return path.startswith(_BELOW_SYSTEM) or path in SYSTEM


@attrs.define
class Dependencies:
    """What was found. ``program`` replaces the command's first word; the sandbox has to have ``paths``."""

    program: str
    _cwd: str
    _env: Mapping[str, str]
    _shared: SharedFolders
    paths: dict[str, None] = attrs.field(factory=dict)  # in the order in which they were found

    def add_program(self, program: str, depth: int) -> None:
        """Add a program, the installation around each of its links, and its interpreter or its libraries."""
        resolved = resolve(program)
        for path in (*resolved.links, resolved.real):
            self.add_installation(os.path.dirname(path))
        if is_within(resolved.real, _JDKS):
            self._add(glob.glob(_JDK_SETTINGS))
        if is_system(resolved.real):
            return
        self._add([program])
        head = read_head(resolved.real, _SHEBANG_MAX)
        if not head.startswith(b"#!"):
            self._add(find_libraries(resolved.real, self._env, self._include))
        elif depth and (interpreter := _interpreter(head, self._cwd, self._env)):
            self.add_program(interpreter, depth - 1)

    def add_installation(self, folder: str) -> None:
        """Add what is installed around ``…/bin``: its libraries, a virtual environment and the base of that."""
        prefix, name = os.path.split(folder)
        if name != "bin" or is_system(folder) or prefix in self._shared or self._include(folder):
            return
        if not os.path.lexists(f"{prefix}/lib"):
            return
        self._add(_parts_of(prefix))
        if base := _base_of(f"{prefix}/pyvenv.cfg"):
            self.add_installation(resolve(base).real)

    def _add(self, paths: Sequence[str]) -> None:
        self.paths |= dict.fromkeys(paths)

    def _include(self, path: str) -> bool:
        """Tell whether a path is the system's, or lies in a folder that was found."""
        return is_system(path) or any(is_within(path, folder) for folder in self.paths)


def _find(name: str, cwd: str, env: Mapping[str, str]) -> str:
    """Find a program as a shell does. For a shim of pyenv, find the program that the shim would run."""
    searched = [""] if "/" in name else env.get("PATH", os.defpath).split(":")
    for folder in searched:
        path = os.path.join(cwd, folder, name)  # Path would drop `..`, which matters after a link
        if _is_program(path):
            return resolve_shim(path, cwd, env, lambda rest: _find(name, cwd, {**env, "PATH": rest}))
    where = "not found or not executable" if "/" in name else "not found on PATH"
    raise Unreachable(f"command {name}: {where}", details={"command": name, "path": env.get("PATH", "")})


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def _parts_of(prefix: str) -> list[str]:
    """List the parts of an installation. If its folder holds nothing else, list the folder: one mount is faster."""
    found = set(os.listdir(prefix))
    if found <= _WHOLE and os.path.basename(prefix) != _AT_HOME:
        return [prefix]
    parts = (*_PARTS, *(part for mark, part in _SPECIAL if os.path.lexists(f"{prefix}/{mark}")))
    return [f"{prefix}/{part}" for part in parts if part in found]


def _base_of(config: str) -> str:
    """Read the folder of the Python that a virtual environment is based on; empty if there is no such Python."""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            pairs = [line.partition("=") for line in file]
    except OSError:
        return ""
    home = next((value.strip() for key, _, value in pairs if key.strip() == "home"), "")
    return home if _is_program(f"{home}/python3") else ""


def _interpreter(head: bytes, cwd: str, env: Mapping[str, str]) -> str:
    """Read the interpreter from a ``#!`` line, and look up a name after ``env``. Empty if the line names none."""
    words = head[2:].split(b"\n")[0].decode(errors="replace").split()
    if words and os.path.basename(words[0]) == "env":
        names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return _find(names[0], cwd, env) if names else ""
    path = os.path.join(cwd, words[0]) if words else ""
    return path if _is_program(path) else ""  # else a script could bring any file by naming it here
