"""Capabilities: one word for what a module declares, what policy approves and what the host enforces (section 6).

Owns the grammar, the canonical form and the order "covers". It grants nothing and enforces nothing.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .json import decode_checked

if TYPE_CHECKING:
    from pathlib import PurePath
    from types import ModuleType

SCRATCH = "$tmp"
"""The path that stands for a module's own scratch folder."""

_HOST_PORT = r"(?:\*|(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4})"
_VARIABLE = r"[^=:*\s]+"
_CUSTOM = r"x-[a-z0-9][a-z0-9._-]*"
_HIGHEST_PORT = 65535


def canonical(word: str, base: Path) -> str:
    """Return the one spelling of a capability: paths absolute, with ``/``, and with symbolic links and ``..`` resolved.

    Relative paths are below ``base``. Raises ``ValueError`` that says what was expected, for any other text.
    """
    namespace, action, resource = _split(word)
    rest = word[len(namespace) + 1 :]
    if not _is_line(word):
        problem = "one line of text"
    elif namespace == "fs" and action in ("read", "write"):
        return f"fs:{action}:{_canonical_path(resource, base)}"
    elif namespace == "net":
        problem = _net_problem(action, resource)
    elif namespace == "env":
        problem = "" if re.fullmatch(_VARIABLE, rest) else "env:NAME"
    elif namespace == "sys":
        problem = _sys_problem(action, rest)
        if not problem:
            spelt = re.sub(r"\*+$", "*", word)  # ** at the end means the same as *
            return f"sys:{action}" if spelt == f"sys:{action}:*" else spelt
    elif re.fullmatch(_CUSTOM, namespace):
        problem = "" if action and rest != f"{action}:" else "x-NAMESPACE:ACTION[:RESOURCE]"
    else:
        problem = "one of fs:read:PATH, fs:write:PATH, net:connect:…, net:listen:*, env:NAME, sys:NAME, x-…:…"
    if problem:
        raise ValueError(f"expected {problem}, got {word!r}")
    return word


def covers(grant: str, wanted: str) -> bool:
    """Tell whether one canonical capability contains another one."""
    namespace, action, resource = _split(grant)
    wanted_namespace, wanted_action, wanted_resource = _split(wanted)
    if namespace != wanted_namespace:
        return False
    if namespace == "fs":
        return action in ("write", wanted_action) and _contains(resource, wanted_resource)
    if action != wanted_action:
        return False
    if not resource or resource == wanted_resource:
        return True
    if resource.endswith("*") and namespace in ("net", "sys"):
        return wanted_resource.startswith(resource[:-1])
    return wanted_resource.startswith(f"{resource}:")


def enforced_by_kernel(word: str) -> bool:
    """Tell whether the kernel itself enforces a capability, wherever the module runs. True for ``sys:`` alone."""
    return word.startswith("sys:")


@functools.cache
def system_calls() -> frozenset[str]:
    """Read the names of the system calls (section 8) from their schema, when the first ``sys:`` word needs them."""
    schema = Path(__file__).parents[1] / "schemas" / "syscalls.json"
    return frozenset(decode_checked(schema.read_bytes())["$defs"]["name"]["enum"])


def _split(word: str) -> tuple[str, str, str]:
    namespace, _, rest = word.partition(":")
    action, _, resource = rest.partition(":")
    return namespace, action, resource


def _is_line(text: str) -> bool:
    """Tell whether a text is Unicode, in one line and without NUL."""
    return "\0" not in text and len(f"{text}.".splitlines()) == 1 and text.encode(errors="ignore").decode() == text


def _canonical_path(path: str, base: PurePath, system: ModuleType = os.path) -> str:
    """Resolve a path by the rules of ``system`` (``posixpath`` or ``ntpath``). The result has ``/`` with both."""
    if not path:
        raise ValueError("expected a path after fs:read: or fs:write:")
    spelt = path.replace(system.sep, "/")
    if _contains(SCRATCH, spelt):
        normal = posixpath.normpath(spelt)
        if not _contains(SCRATCH, normal):
            raise ValueError(f"expected a path inside {SCRATCH}, got {path!r}")
        return normal
    real = str(system.realpath(system.join(base, path))).replace(system.sep, "/")
    if not _is_line(real):  # a link may lead to any name
        raise ValueError(f"expected a path that is one line of text, got {real!r}")
    return real


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def _net_problem(action: str, resource: str) -> str:
    if action == "listen":
        return "" if resource == "*" else "net:listen:*"
    if action == "connect" and re.fullmatch(_HOST_PORT, resource):
        port = resource.rpartition(":")[2]
        return "" if resource == "*" or 0 < int(port) <= _HIGHEST_PORT else "a port from 1 to 65535"
    return "net:connect:* or net:connect:HOST:PORT"


def _sys_problem(action: str, rest: str) -> str:
    if action not in system_calls() or rest == f"{action}:":
        return "sys:NAME[:PATTERN] with a system call's name"
    return "a pattern with * only at its end" if "*" in rest.rstrip("*") else ""
