"""A module's own code: the files of the host that its descriptor brings into the sandbox.

Owns that rule: it is the descriptor's folder, unless that is a shared one. What a command needs to start is not here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._paths import is_pseudo, is_within

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Launch

    from ._paths import ResolvedPath, SharedFolders
    from ._search import Search


def find_code(
    launch: Launch, descriptor: ModuleDescriptor, shared: SharedFolders, search: Search
) -> list[ResolvedPath]:
    """List the folder of a descriptor's file. If there is none, or it is shared, list files that the command names.

    For a file in a shared folder, these are files below that folder; for an object that a program made, any files.
    """
    base = search.resolve(str(descriptor.base))
    from_file = os.path.isfile(descriptor.source) and _folder_of(descriptor.source, search) == base.real
    if from_file and base.real not in shared:
        return [search.resolve(base.real)]
    named = (os.path.join(launch.cwd, word) for word in launch.command[1:])  # Path would drop `..` after a link
    files = [search.resolve(path) for path in named if os.path.isfile(path)]
    return [file for file in files if not is_pseudo(file.real) and (not from_file or is_within(file.real, base.real))]


def _folder_of(file: str, search: Search) -> str:
    return search.resolve(os.path.dirname(os.path.abspath(file))).real
