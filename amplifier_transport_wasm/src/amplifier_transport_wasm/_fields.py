"""The fields of ``transport`` that belong to WebAssembly: ``module``, ``args``, ``env``.

Owns their meaning and their errors. It looks at no file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor

_PATH_MAX = 4096
_WORDS_MAX = 1024  # arguments, and variables
_CHARACTERS_MAX = 1 << 20  # of both together


@attrs.frozen
class WasmFields:
    """A WASI program: ``module`` is the absolute path of its file."""

    module: str
    args: Sequence[str]
    env: Mapping[str, str]


def read_fields(descriptor: ModuleDescriptor) -> WasmFields:
    """Read the fields strictly; raises ``BadRequest`` with the JSON path. Relative paths are below the descriptor."""
    descriptor.check_known(("type", "module", "args", "env"))
    module, args, env = _module(descriptor), _args(descriptor), _env(descriptor)
    if (size := sum(map(len, (*args, *env, *env.values())))) > _CHARACTERS_MAX:
        raise descriptor.misfit(".args", f"expected at most {_CHARACTERS_MAX} characters with env, got {size}")
    return WasmFields(module, args, env)


def _module(descriptor: ModuleDescriptor) -> str:
    path = descriptor.transport.get("module")
    if not isinstance(path, str) or not _is_text(path) or not path or len(path) > _PATH_MAX:
        raise descriptor.misfit(".module", "expected the path of a .wasm file", path)
    plain = os.path.normpath(path).replace(os.sep, "/") == path.replace(os.sep, "/")
    if descriptor.caller is not None and not (plain and os.path.isabs(path)):  # noqa: PTH117
        raise descriptor.misfit(".module", "expected an absolute path without .., as a module wrote the descriptor")
    return os.path.normpath(descriptor.base / path)


def _args(descriptor: ModuleDescriptor) -> Sequence[str]:
    args = descriptor.transport.get("args", [])
    if not isinstance(args, list | tuple) or not all(map(_is_text, args)):
        raise descriptor.misfit(".args", "expected a list of text without NUL")
    if len(args) > _WORDS_MAX:
        raise descriptor.misfit(".args", f"expected at most {_WORDS_MAX} texts, got {len(args)}")
    return tuple(args)


def _env(descriptor: ModuleDescriptor) -> Mapping[str, str]:
    env = descriptor.transport.get("env", {})
    if not isinstance(env, dict) or not all(_is_text(word) for pair in env.items() for word in pair):
        raise descriptor.misfit(".env", "expected an object of text without NUL")
    if len(env) > _WORDS_MAX:
        raise descriptor.misfit(".env", f"expected at most {_WORDS_MAX} variables, got {len(env)}")
    for name in env:
        if not name or "=" in name:
            raise descriptor.misfit(".env", "expected names of variables, which have no = and are not empty", name)
    return env


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value
