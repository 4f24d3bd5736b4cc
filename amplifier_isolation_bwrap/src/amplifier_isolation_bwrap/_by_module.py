"""What a module asks to be started: with the system call ``mount``, by a descriptor that the module wrote.

Owns the rule: a program of the system, or one that was granted. Nothing else of the host is looked at, and each refusal
has the same words, so that no error tells a module what there is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from amplifier_core import Forbidden, Unreachable

from ._paths import is_system, is_within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._search import Search

_SHOWN = 200  # characters of a command in an error
_PATH_MAX = 256  # folders


def find_wanted(command: str, env: Mapping[str, str], caller: str, search: Search) -> str:
    """Return the path of a program of the system; return a path elsewhere unchanged. Raises ``Forbidden``."""
    if "/" not in command:
        folders = filter(is_system, env.get("PATH", os.defpath).split(":", _PATH_MAX)[:_PATH_MAX])
        places = [f"{folder}/{command}" for folder in folders]
    else:
        places = [command]
    for place in places:
        if os.path.normpath(place) == place and (found := _checked(place, search)):
            return found
    raise _refusal(command, caller)


def check_granted(program: str, granted: Sequence[str], caller: str) -> None:
    """Refuse a program that is neither the system's nor in a path that was granted. It looks at no file."""
    paths = (word.split(":", 2)[2] for word in granted if word.startswith("fs:"))
    if not is_system(program) and not any(is_within(program, path) for path in paths):
        raise _refusal(program, caller)


def refuse_path(path: str, caller: str) -> Forbidden:
    """Make the error for a path that was granted and cannot be opened."""
    return Forbidden(f"{path}: what {caller} mounts can have only what is there, with no link on the way to it")


def _refusal(command: str, caller: str) -> Forbidden:
    """Make the one error, whatever there is."""
    shown = command if len(command) <= _SHOWN else f"{command[:_SHOWN]}…"
    return Forbidden(
        f"{shown!r}: what {caller} mounts can start the system's programs and what its own fs:read: grants cover, "
        "and this is neither"
    )


def _checked(path: str, search: Search) -> str:
    """Return the path, in a real folder if it is the system's; empty if the system has no such program."""
    if not is_system(path):
        return path
    folder, name = os.path.split(path)
    try:
        real = search.resolve(path).real
    except Unreachable:  # it is too long
        return ""
    return f"{search.resolve(folder).real}/{name}" if is_system(real) and search.is_program(real) else ""
