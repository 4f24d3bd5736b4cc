"""A module's own code: the files of the host that its descriptor brings into the sandbox.

Owns that rule: it is the descriptor's folder, unless that is a shared one. What a command needs to start is not here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ._paths import is_pseudo, is_within

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Launch

    from ._paths import SharedFolders


def find_code(launch: Launch, descriptor: ModuleDescriptor, shared: SharedFolders) -> list[str]:
    """List the folder of a descriptor's file. If there is none, or it is shared, list files that the command names.

    For a file in a shared folder, these are files below that folder; for an object that a program made, any files. A
    descriptor that comes from a module brings nothing.
    """
    if descriptor.caller is not None:
        return []
    base = os.path.realpath(descriptor.base)
    source = Path(descriptor.source)
    from_file = source.is_file() and os.path.realpath(source.parent) == base
    if from_file and base not in shared:
        return [base]
    named = (os.path.join(launch.cwd, word) for word in launch.command[1:])  # Path would drop `..` after a link
    files = ((path, os.path.realpath(path)) for path in named if os.path.isfile(path))
    return [path for path, real in files if not is_pseudo(real) and (not from_file or is_within(real, base))]
