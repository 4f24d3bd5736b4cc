"""What a command needs to start: the program, the interpreter that it names, and the folders that they come with.

Owns the search: PATH, links, ``#!`` lines, pyenv's shims, virtual environments, libraries beside a program. What is in
the system's own folders needs nothing more, and nothing is run to find out.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

from ._elf import find_libraries
from ._paths import is_pseudo, is_within, resolve
from ._pyenv import resolve_shim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._paths import SharedFolders

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
"""The folders of the system's programs and libraries: every module sees them."""

_BELOW_SYSTEM = tuple(f"{folder}/" for folder in SYSTEM)
_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "pyvenv.cfg")  # of an installation that has other things beside
_SPECIAL = (("lib/jvm.cfg", "conf"), ("conda-meta", "ssl"))  # parts of a JDK and of a conda environment alone
_WHOLE = {*_PARTS, "include", "share", "man", "LICENSE", "README.md", "CHANGELOG.md"}
_WHOLE |= {".gitignore", ".lock", "CACHEDIR.TAG"}  # virtualenv's and uv's
_JDKS, _JDK_SETTINGS = "/usr/lib/jvm", "/etc/java*"  # Debian's look for theirs there
_AT_HOME = ".local"  # whose share/ holds what programs keep for their user
_NESTED = 4  # an interpreter of an interpreter of …: the operating system follows as many
_SHEBANG_MAX = 256


@attrs.define
class Dependencies:
    """What was found: ``program`` takes the place of the command's first word; ``paths`` are to be there."""

    program: str
    paths: dict[str, None] = attrs.field(factory=dict)  # in the order in which they were found

    def brings(self, path: str) -> bool:
        """Tell whether a path is the system's, or in a folder that was found."""
        return is_system(path) or any(is_within(path, folder) for folder in self.paths)


def find_dependencies(command: Sequence[str], cwd: str, env: Mapping[str, str], shared: SharedFolders) -> Dependencies:
    """Find out what a command needs. Raises ``Unreachable`` if there is no such program."""
    folder, name = os.path.split(_find(command[0], cwd, env))
    program = f"{resolve(folder).real}/{name}"  # a way with `..` in it may lead through folders that are not shown
    program = resolve(program).real if is_pseudo(program) else program  # /proc/self/exe is another one inside
    needs = Dependencies(program)
    _add_program(needs, program, cwd, env, shared, _NESTED)
    return needs


def is_system(path: str) -> bool:
    """Tell whether a real path is the system's."""
    return path.startswith(_BELOW_SYSTEM) or path in SYSTEM


def _find(name: str, cwd: str, env: Mapping[str, str]) -> str:
    """Find a program as a shell would, and behind a shim of pyenv the one that it would run."""
    searched = [""] if "/" in name else env.get("PATH", os.defpath).split(":")
    for folder in searched:
        path = os.path.join(cwd, folder, name)  # Path would drop `..`, and what it is after a link
        if _is_program(path):
            return resolve_shim(path, cwd, env, lambda rest: _find(name, cwd, {**env, "PATH": rest}))
    where = "not found or not executable" if "/" in name else "not found on PATH"
    raise Unreachable(f"command {name}: {where}", details={"command": name, "path": env.get("PATH", "")})


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def _add_program(
    needs: Dependencies, program: str, cwd: str, env: Mapping[str, str], shared: SharedFolders, depth: int
) -> None:
    """Add a program: each place that its links lead through, what it comes with there, and what runs it."""
    trail = resolve(program)
    for place in (*trail.links, trail.real):
        _add_installation(needs, os.path.dirname(place), shared)
    if is_within(trail.real, _JDKS):
        needs.paths |= dict.fromkeys(glob.glob(_JDK_SETTINGS))
    if is_system(trail.real):
        return
    needs.paths[program] = None
    head = _head(trail.real)
    if not head.startswith(b"#!"):
        needs.paths |= dict.fromkeys(find_libraries(trail.real, env, needs.brings))
    elif depth and (interpreter := _interpreter(head, cwd, env)):
        _add_program(needs, interpreter, cwd, env, shared, depth - 1)


def _add_installation(needs: Dependencies, folder: str, shared: SharedFolders) -> None:
    """Add what is installed around ``…/bin``: its own libraries, a virtual environment and what that is based on."""
    prefix, name = os.path.split(folder)
    if name != "bin" or is_system(folder) or prefix in shared or needs.brings(folder):
        return
    if not os.path.lexists(f"{prefix}/lib"):
        return
    needs.paths |= dict.fromkeys(_parts_of(prefix))
    if base := _base_of(f"{prefix}/pyvenv.cfg"):
        _add_installation(needs, resolve(base).real, shared)


def _parts_of(prefix: str) -> list[str]:
    """List what belongs to an installation: the whole folder, if there is nothing else in it; one mount is faster."""
    found = set(os.listdir(prefix))
    if found <= _WHOLE and os.path.basename(prefix) != _AT_HOME:
        return [prefix]
    parts = (*_PARTS, *(part for mark, part in _SPECIAL if os.path.lexists(f"{prefix}/{mark}")))
    return [f"{prefix}/{part}" for part in parts if part in found]


def _base_of(config: str) -> str:
    """Read where the Python of a virtual environment lives; empty if this is none, or there is no Python."""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            pairs = [line.partition("=") for line in file]
    except OSError:
        return ""
    home = next((value.strip() for key, _, value in pairs if key.strip() == "home"), "")
    return home if _is_program(f"{home}/python3") else ""


def _interpreter(head: bytes, cwd: str, env: Mapping[str, str]) -> str:
    """Read a ``#!`` line; through ``env`` the name is looked up. Empty if there is nothing to find."""
    words = head[2:].split(b"\n")[0].decode(errors="replace").split()
    if words and os.path.basename(words[0]) == "env":
        names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return _find(names[0], cwd, env) if names else ""
    path = os.path.join(cwd, words[0]) if words else ""
    return path if _is_program(path) else ""  # what cannot be run is a file that somebody would like to read


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_SHEBANG_MAX)
    except OSError:
        return b""
