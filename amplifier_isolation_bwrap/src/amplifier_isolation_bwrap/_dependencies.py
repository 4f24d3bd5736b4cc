"""The dependencies of a command: its program, the interpreter of that, and the folders that these are installed in.

Owns the search: PATH, links, ``#!`` lines, pyenv's shims, virtual environments, libraries beside a program. It runs no
program to find out. A program in the system's own folders has no dependencies: every module sees these folders.
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable
from amplifier_core.hookspecs import why_not_started

from ._elf import find_libraries
from ._paths import is_pseudo, is_system, is_within
from ._pyenv import resolve_shim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._paths import ResolvedPath, SharedFolders
    from ._search import Search

_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "pyvenv.cfg")  # of an installation, beside other things
_SPECIAL = (("lib/jvm.cfg", "conf"), ("conda-meta", "ssl"))  # parts of a JDK and of a conda environment alone
_WHOLE = {*_PARTS, "include", "share", "man", "LICENSE", "README.md", "CHANGELOG.md"}
_WHOLE |= {".gitignore", ".lock", "CACHEDIR.TAG"}  # virtualenv and uv write these
_JDKS, _JDK_SETTINGS = "/usr/lib/jvm", "/etc/java*"  # Debian keeps a JDK's settings apart from it
_AT_HOME = ".local"  # its share/ holds what programs store for their user
_NESTED = 4  # an interpreter may be a script too, and the operating system follows as many
_SHEBANG_MAX = 256
_CONFIG_MAX = 64 << 10
_PATH_MAX = 256  # folders


def find_dependencies(
    command: Sequence[str], cwd: str, env: Mapping[str, str], shared: SharedFolders, search: Search
) -> Dependencies:
    """Find the dependencies of a command. Raises ``Unreachable`` if its program does not exist."""
    folder, name = os.path.split(find_program(command[0], cwd, env, search))
    program = (
        f"{search.resolve(folder).real}/{name}"  # a path with `..` may lead through folders that the sandbox lacks
    )
    program = search.resolve(program).real if is_pseudo(program) else program  # /proc/self/exe is another one inside
    found = Dependencies(program, cwd, env, shared, search)
    found.add_program(program, _NESTED)
    return found


@attrs.define
class Dependencies:
    """What was found. ``program`` replaces the command's first word; the sandbox has to have ``paths``.

    ``fault`` says in one line why the system will not start it; empty, if it will as far as is known.
    """

    program: str
    _cwd: str
    _env: Mapping[str, str]
    _shared: SharedFolders
    _search: Search
    paths: dict[str, ResolvedPath] = attrs.field(factory=dict)  # in the order in which they were found
    fault: str = ""

    def add_program(self, program: str, depth: int, named_in: str | None = None) -> None:
        """Add a program, the installation around each of its links, and its interpreter or its libraries."""
        resolved = self._search.resolve(program, named_in)
        for path in (*resolved.links, resolved.real):
            self.add_installation(os.path.dirname(path))
        if is_within(resolved.real, _JDKS):
            self._add(glob.glob(_JDK_SETTINGS))
        head = self._search.read(resolved.real, _SHEBANG_MAX)
        if not self.fault and (why := why_not_started(head, self._is_there)):
            self.fault = f"command {program}: {why}"
        if is_system(resolved.real):
            return
        self._add([program])
        if not head.startswith(b"#!"):
            self._add(find_libraries(resolved.real, self._env, self._include, self._search))
        elif depth and (interpreter := self._interpreter(head)):
            self.add_program(interpreter, depth - 1, resolved.real)

    def add_installation(self, folder: str, depth: int = _NESTED) -> None:
        """Add what is installed around ``…/bin``: its libraries, a virtual environment and the base of that."""
        prefix, name = os.path.split(folder)
        if not depth or name != "bin" or is_system(folder) or prefix in self._shared or self._include(folder):
            return
        if not os.path.lexists(f"{prefix}/lib"):
            return
        self._add(self._parts_of(prefix))
        config = self._search.resolve(f"{prefix}/pyvenv.cfg").real
        if base := self._base_of(config):
            self.add_installation(self._search.resolve(base, config).real, depth - 1)

    def _add(self, paths: Iterable[str]) -> None:
        self.paths |= {path: self._search.resolve(path) for path in paths}

    def _include(self, path: str) -> bool:
        """Tell whether a path is the system's, or lies in a folder that was found."""
        return is_system(path) or any(is_within(path, folder) for folder in self.paths)

    def _parts_of(self, prefix: str) -> list[str]:
        """List the parts of an installation. If its folder holds nothing else, list the folder: one mount is faster."""
        names = self._search.names(prefix)
        if names and _WHOLE.issuperset(names) and os.path.basename(prefix) != _AT_HOME:
            return [prefix]
        marked = (part for mark, part in _SPECIAL if os.path.lexists(f"{prefix}/{mark}"))
        return [path for part in (*_PARTS, *marked) if os.path.lexists(path := f"{prefix}/{part}")]

    def _base_of(self, config: str) -> str:
        """Read the folder of the Python that a virtual environment is based on; empty if there is no such Python."""
        text = self._search.read(config, _CONFIG_MAX).decode(errors="replace")
        pairs = (line.partition("=") for line in text.splitlines())
        home = next((value.strip() for key, _, value in pairs if key.strip() == "home"), "")
        return home if self._search.is_program(f"{home}/python3") else ""

    def _is_there(self, name: str) -> bool:
        return self._search.is_program(os.path.join(self._cwd, name))

    def _interpreter(self, head: bytes) -> str:
        """Read the interpreter from a ``#!`` line, and look up a name after ``env``. Empty if the line names none."""
        words = head[2:].split(b"\n")[0].decode(errors="replace").split()
        if words and os.path.basename(words[0]) == "env":
            names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            return find_program(names[0], self._cwd, self._env, self._search) if names else ""
        path = os.path.join(self._cwd, words[0]) if words else ""
        return path if self._search.is_program(path) else ""  # else a script could bring any file by naming it here


def find_program(name: str, cwd: str, env: Mapping[str, str], search: Search) -> str:
    """Find a program as a shell does. For a shim of pyenv, find the program that the shim would run."""
    searched = [""] if "/" in name else env.get("PATH", os.defpath).split(":")
    if len(searched) > _PATH_MAX:
        raise Unreachable(f"command {name}: expected at most {_PATH_MAX} folders in PATH, got {len(searched)}")

    def find_on(rest: str) -> str:
        return find_program(os.path.basename(name), cwd, {**env, "PATH": rest}, search)

    for folder in searched:
        path = os.path.join(cwd, folder, name)  # Path would drop `..`, which matters after a link
        if search.is_program(path):
            return resolve_shim(path, cwd, env, search, find_on)
    where = "not found or not executable" if "/" in name else "not found on PATH"
    raise Unreachable(f"command {name}: {where}", details={"command": name, "path": env.get("PATH", "")})
