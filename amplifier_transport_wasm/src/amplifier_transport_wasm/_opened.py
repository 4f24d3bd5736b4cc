"""What the grants of a module open for it: folders, and variables of the environment.

Owns the meaning of ``fs:`` and ``env:`` here. The host program does the opening, and follows no link then.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from amplifier_core import Forbidden, Unreachable

from ._pseudo_files import why_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from amplifier_core import ModuleDescriptor

    Folder = tuple[str, str, bool]
    """The path here, the path for the module, and whether it may be written to."""

_SCRATCH = "$tmp"


def cannot_open(words: Sequence[str]) -> tuple[str, ...]:
    """List the capabilities that no grant can give a WASI program: there is no network."""
    return tuple(word for word in words if word.startswith("net:"))


def folders_of(granted: Sequence[str]) -> list[Folder]:
    """List the host's folders that are opened."""
    return [(path, path, writes) for path, writes in _paths(granted) if not _in_scratch(path)]


def scratch_of(granted: Sequence[str], scratch: str) -> list[Folder]:
    """List what is opened of the module's own scratch folder, which is ``scratch`` here and for the module."""
    found = [(path, writes) for path, writes in _paths(granted) if _in_scratch(path)]
    places = ((scratch + path.removeprefix(_SCRATCH), writes) for path, writes in found)
    return [(place, place, writes) for place, writes in places]


def variables_of(granted: Sequence[str]) -> dict[str, str]:
    """Give the variables of this environment that were granted, as far as they are set."""
    names = (word.removeprefix("env:") for word in granted if word.startswith("env:"))
    return {name: os.environ[name] for name in names if name in os.environ}


def check_opened(descriptor: ModuleDescriptor, module: str, granted: Sequence[str]) -> str:
    """Check the folders, and the module's file, and give its real path. It looks at files, after policy has allowed it.

    A module that mounts this is told the same, whatever there is.
    """
    paths = [path for path, _ in _paths(granted) if not _in_scratch(path)]
    if descriptor.caller is not None:
        if not any(_is_within(module, path) for path in paths) or not _is_straight(module, os.path.isfile):
            raise Forbidden(
                f"{module!r}: what {descriptor.caller} mounts can run only what its own fs:read: grants cover, "
                "with no link on the way to it"
            )
        for path in paths:
            if not _is_straight(path, os.path.isdir) or why_closed(path):
                raise Forbidden(
                    f"{path}: what {descriptor.caller} mounts can have only folders of files that are there, "
                    "with no link on the way to it"
                )
        return module
    for path in paths:
        if not os.path.isdir(path):
            what = "is a file, and a WASI program is given folders" if os.path.exists(path) else "is not there"
            raise Unreachable(f"{path} {what}")
        if why := why_closed(path):
            raise Forbidden(f"{path}: {why}")
    return os.path.realpath(module)


def _paths(granted: Sequence[str]) -> Iterator[tuple[str, bool]]:
    for word in granted:
        if word.startswith("fs:"):
            _, action, path = word.split(":", 2)
            yield path, action == "write"


def _in_scratch(path: str) -> bool:
    return path == _SCRATCH or path.startswith(f"{_SCRATCH}/")


def _is_within(path: str, folder: str) -> bool:
    spelt = path.replace(os.sep, "/")
    return spelt == folder or spelt.startswith(f"{folder.rstrip('/')}/")


def _is_straight(path: str, is_kind: Callable[[str], bool]) -> bool:
    return os.path.realpath(path).replace(os.sep, "/") == path.replace(os.sep, "/") and is_kind(path)
