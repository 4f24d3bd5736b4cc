"""Capabilities: one word for what a module declares, what policy approves and what the host enforces (section 6).

Owns the grammar, the canonical form and the order "covers". It grants nothing and enforces nothing.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import short
from .json import decode_checked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePath
    from types import ModuleType

WORD_MAX = 4352
"""The most characters of a capability: a path of 4096, and what stands before it."""

WORDS_MAX = 256
"""The most capabilities in one list: of a descriptor, a description or an answer of policy."""

SCRATCH = "$tmp"
"""The path that stands for a module's own scratch folder."""

_HOST_PORT = r"(?:\*|(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4})"
_VARIABLE = r"[^=:*\s]+"
_CUSTOM = r"x-[a-z0-9][a-z0-9._-]*"
_HIGHEST_PORT = 65535
_SHOWN = 200  # characters of a word in an error


def canonical(word: str, base: Path | None, *, resolve: bool = True) -> str:
    """Return the one spelling of a capability: paths absolute, with ``/``, and with symbolic links and ``..`` resolved.

    Relative paths are below ``base``; ``None`` refuses them. Without ``resolve`` no file is looked at: ``..`` is taken
    by its letters, and links stay. That is for what a module wrote. Raises ``ValueError`` that says what was expected,
    for any other text.
    """
    if len(word) > WORD_MAX:
        raise ValueError(f"expected at most {WORD_MAX} characters in a capability, got {len(word)}")
    namespace, action, resource = _split(word)
    rest = word[len(namespace) + 1 :]
    if not _is_line(word):
        problem = "one line of text"
    elif namespace == "fs" and action in ("read", "write"):
        return f"fs:{action}:{_canonical_path(resource, base, resolve=resolve)}"
    elif namespace == "net":
        problem = _net_problem(action, resource)
        word = word if problem else word.lower()  # a host has the same name in capitals
    elif namespace == "env":
        problem = "" if re.fullmatch(_VARIABLE, rest) else "env:NAME"
    elif namespace == "sys":
        problem = _sys_problem(action, rest)
        if not problem:
            spelt = f"{word.rstrip('*')}*" if word.endswith("*") else word  # ** means the same as *
            return f"sys:{action}" if spelt == f"sys:{action}:*" else spelt
    elif re.fullmatch(_CUSTOM, namespace):
        problem = "" if action and rest != f"{action}:" else "x-NAMESPACE:ACTION[:RESOURCE]"
    else:
        problem = "one of fs:read:PATH, fs:write:PATH, net:connect:…, net:listen:*, env:NAME, sys:NAME, x-…:…"
    if problem:
        raise ValueError(f"expected {problem}, got {short(word, _SHOWN)}")
    return word


class Reach(NamedTuple):
    """What some canonical capabilities contain: these words, and all words that begin in one of these ways.

    Two tests of the interpreter's own, so that two long lists are compared in milliseconds.
    """

    words: frozenset[str]
    beginnings: tuple[str, ...]

    def covers(self, wanted: str) -> bool:
        """Tell whether one of the capabilities contains a canonical one."""
        return wanted in self.words or wanted.startswith(self.beginnings)


def reach(grants: Iterable[str]) -> Reach:
    """Find out what canonical capabilities contain."""
    words: set[str] = set()
    beginnings: list[str] = []
    for grant in grants:
        for word in _with_narrower(grant):
            words.add(word)
            beginnings.append(_beginning(word))
    return Reach(frozenset(words), tuple(beginnings))


def _with_narrower(word: str) -> tuple[str, ...]:
    """Give a capability, and the one of another action that it contains."""
    if word.startswith("fs:write:"):
        return word, f"fs:read:{word[9:]}"
    if word.startswith("sys:") and word.endswith(":*") and word.find(":", len("sys:")) == len(word) - len(":*"):
        return word, word[: -len(":*")]
    return (word,)


def _beginning(word: str) -> str:
    if word.startswith("fs:"):
        return word if word.endswith("/") else f"{word}/"
    if word.endswith("*") and word.startswith(("net:", "sys:")):
        return word[:-1]
    return f"{word}:"


def covers(grant: str, wanted: str) -> bool:
    """Tell whether one canonical capability contains another one."""
    return reach((grant,)).covers(wanted)


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


def _canonical_path(path: str, base: PurePath | None, system: ModuleType = os.path, *, resolve: bool = True) -> str:
    """Resolve a path by the rules of ``system`` (``posixpath`` or ``ntpath``). The result has ``/`` with both."""
    if not path:
        raise ValueError("expected a path after fs:read: or fs:write:")
    spelt = path.replace(system.sep, "/")
    if _contains(SCRATCH, spelt):
        normal = posixpath.normpath(spelt)
        if not _contains(SCRATCH, normal):
            raise ValueError(f"expected a path inside {SCRATCH}, got {short(path, _SHOWN)}")
        return normal
    if base is None and not system.isabs(path):
        raise ValueError(f"expected an absolute path, got {short(path, _SHOWN)}")
    joined = system.join(base or "", path)
    real = str(system.realpath(joined) if resolve else system.normpath(joined)).replace(system.sep, "/")
    if real.startswith("//") and system is posixpath:  # normpath keeps two slashes
        real = real[1:]
    if not _is_line(real):  # a link may lead to any name
        raise ValueError(f"expected a path that is one line of text, got {short(real, _SHOWN)}")
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
