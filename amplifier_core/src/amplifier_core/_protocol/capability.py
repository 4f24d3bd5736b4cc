"""Capabilities: one word for what a module declares, what policy approves and what the host enforces (section 6).

Owns the grammar, the canonical form and the order "covers". It grants nothing and enforces nothing.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import short
from .json import decode_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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

    No beginning begins with another one, and they are sorted. So the one that a word may have is found at once, and two
    long lists are compared in a millisecond.
    """

    words: frozenset[str]
    beginnings: Sequence[str]

    def covers(self, wanted: str) -> bool:
        """Tell whether one of the capabilities contains a canonical one."""
        return wanted in self.words or _beginning_of(wanted, self.beginnings) is not None


def reach(grants: Iterable[str]) -> Reach:
    """Find out what canonical capabilities contain."""
    words = frozenset(word for grant in grants for word in _with_narrower(grant))
    return Reach(words, _outermost(map(_beginning, words)))


def _outermost(beginnings: Iterable[str]) -> list[str]:
    """Sort beginnings, and leave out each that begins with another one: in this order that is the last one kept."""
    kept: list[str] = []
    for each in sorted(beginnings):
        if not kept or not each.startswith(kept[-1]):
            kept.append(each)
    return kept


def _beginning_of(word: str, outermost: Sequence[str]) -> str | None:
    """Give the one of these beginnings that a word has: the last one that does not sort behind it, or none."""
    at = bisect_right(outermost, word) - 1
    return outermost[at] if at >= 0 and word.startswith(outermost[at]) else None


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


def meet(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Give what two lists of canonical capabilities both contain, in as few words as that takes.

    Where a word of one list covers one of the other, that is the narrower.
    """
    both: list[str] = []
    for words, within in ((one, reach(other)), (other, reach(one))):
        parts = chain.from_iterable(map(_with_narrower, words))
        both += filter(within.covers, parts)
    return widest(both)


def without_part(words: Iterable[str], other: Iterable[str]) -> str | None:
    """Name the first of some canonical capabilities that has nothing in common with any of the others."""
    within = reach(other)
    ordered = sorted(within.words)
    for word in words:
        parts = _with_narrower(word)
        if not any(map(within.covers, parts)) and not any(_has_below(part, ordered) for part in parts):
            return word
    return None


def _has_below(word: str, ordered: Sequence[str]) -> bool:
    beginning = _beginning(word)
    at = bisect_left(ordered, beginning)
    return at < len(ordered) and ordered[at].startswith(beginning)


def widest(words: Iterable[str]) -> list[str]:
    """Leave out each word that another one covers."""
    each_once = dict.fromkeys(words)
    parts = [_with_narrower(word) for word in each_once]
    below = set(chain.from_iterable(narrower for _, *narrower in parts))
    beginnings = Counter(map(_beginning, chain.from_iterable(parts)))
    outermost = _outermost(beginnings)

    def is_covered(word: str) -> bool:
        found = _beginning_of(word, outermost)
        of_another = found is not None and (found != _beginning(word) or beginnings[found] > 1)
        return of_another or word in below

    return [word for word in each_once if not is_covered(word)]


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
