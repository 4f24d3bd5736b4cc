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
    transport = descriptor.transport
    for name in transport:
        if name not in known:
            raise descriptor.misfit(f".{name}", f"expected one of {', '.join(known)}")
    command = transport.get("command")
    if not isinstance(command, list | tuple) or not command:
        raise descriptor.misfit(".command", f"expected a list of text that is not empty, got {command!r}")
    for n, word in enumerate(command):
        if not _is_text(word) or not (word or n):
            raise descriptor.misfit(f".command[{n}]", f"expected text, got {word!r}")
    cwd = transport.get("cwd", ".")
    if not _is_text(cwd):
        raise descriptor.misfit(".cwd", f"expected a path, got {cwd!r}")
    env = transport.get("env", {})
    if not isinstance(env, dict) or not all(_is_text(word) for pair in env.items() for word in pair):
        raise descriptor.misfit(".env", "expected an object of text without NUL")
    if transport.get("instance", "shared") != "shared":
        raise descriptor.misfit(".instance", f"expected 'shared', got {transport['instance']!r}")
    program = command[0]
    if Path(program).name != program:  # a path; a bare name is looked up on PATH
        program = str(descriptor.base / program)
    return StdioFields((program, *command[1:]), str(descriptor.base / cwd), env)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value
