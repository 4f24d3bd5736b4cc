"""The fields of ``transport`` that belong to STDIO: ``command``, ``cwd``, ``env``, ``instance``.

Owns their meaning and their errors. It starts nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from amplifier_core.hookspecs import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor

_WORDS_MAX = 1024  # of the command, and variables of the environment
_CHARACTERS_MAX = 1 << 20  # of both together; the operating system takes at most 2 MiB
_PATH_MAX = 4096
_KNOWN = ("type", "command", "cwd", "env", "instance")
_INHERITED = ("PATH", "SYSTEMROOT")  # an interpreter is found with them; every other variable is `env:NAME` or `env`


@attrs.frozen
class StdioFields:
    """How a module is started: ``command[0]`` is a name on PATH or an absolute path, ``cwd`` is absolute."""

    command: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]

    def launch(self, granted: Sequence[str]) -> Launch:
        """Give what to start, with the variables that were granted of the host's and those of the descriptor."""
        names = [*_INHERITED, *(word.removeprefix("env:") for word in granted if word.startswith("env:"))]
        env = {name: os.environ[name] for name in names if name in os.environ} | dict(self.env)
        return Launch(command=self.command, cwd=self.cwd, env=env)


def read_fields(descriptor: ModuleDescriptor, known: Sequence[str] = _KNOWN) -> StdioFields:
    """Read the fields strictly; raises ``BadRequest`` with the JSON path. Relative paths are below the descriptor."""
    descriptor.check_known(known)
    command, env = _command(descriptor), _env(descriptor)
    if (size := sum(map(len, (*command, *env, *env.values())))) > _CHARACTERS_MAX:
        raise descriptor.misfit(".command", f"expected at most {_CHARACTERS_MAX} characters with env, got {size}")
    if descriptor.transport.get("instance", "shared") != "shared":
        raise descriptor.misfit(".instance", "expected 'shared'", descriptor.transport["instance"])
    return StdioFields((_program(descriptor, command[0]), *command[1:]), _cwd(descriptor), env)


def _command(descriptor: ModuleDescriptor) -> Sequence[str]:
    command = descriptor.transport.get("command")
    if not isinstance(command, list | tuple) or not command:
        raise descriptor.misfit(".command", "expected a list of text that is not empty", command)
    if len(command) > _WORDS_MAX:
        raise descriptor.misfit(".command", f"expected at most {_WORDS_MAX} texts, got {len(command)}")
    for n, word in enumerate(command):
        if not _is_text(word) or not (word or n):
            raise descriptor.misfit(f".command[{n}]", "expected text", word)
    return command


def _env(descriptor: ModuleDescriptor) -> Mapping[str, str]:
    env = descriptor.transport.get("env", {})
    if isinstance(env, dict) and len(env) > _WORDS_MAX:
        raise descriptor.misfit(".env", f"expected at most {_WORDS_MAX} variables, got {len(env)}")
    if not isinstance(env, dict) or not all(_is_text(word) for pair in env.items() for word in pair):
        raise descriptor.misfit(".env", "expected an object of text without NUL")
    for name in env:
        if not name or "=" in name:
            raise descriptor.misfit(".env", "expected names of variables, which have no = and are not empty", name)
    return env


# Relative paths are below the descriptor of an embedder. A descriptor that a module wrote lies nowhere.
def _program(descriptor: ModuleDescriptor, program: str) -> str:
    """Give a path as an absolute one. A bare name is looked up on PATH, and stays as it is."""
    if Path(program).name == program:
        return program
    if descriptor.caller is not None and not Path(program).is_absolute():
        raise descriptor.misfit(".command[0]", "expected a name or an absolute path, as a module wrote the descriptor")
    return str(descriptor.base / program)


def _cwd(descriptor: ModuleDescriptor) -> str:
    cwd = descriptor.transport.get("cwd", "." if descriptor.caller is None else descriptor.base.anchor)
    if not _is_text(cwd) or len(cwd) > _PATH_MAX:
        raise descriptor.misfit(".cwd", "expected a path", cwd)
    if descriptor.caller is not None and not Path(cwd).is_absolute():
        raise descriptor.misfit(".cwd", "expected an absolute path, as a module wrote the descriptor")
    return str(descriptor.base / cwd)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value
