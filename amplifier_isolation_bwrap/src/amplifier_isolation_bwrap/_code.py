"""A module's own code: which files of the host come with a descriptor.

Owns that rule: the descriptor's folder, unless that would be the home or what everyone shares.
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
    """List the folder of a descriptor's file, or else the files that the command names.

    A file that brings its folder along names nothing beyond it. One that lies in the home names files in there, and an
    object that a program made names any. What another module named brings nothing along.
    """
    if descriptor.caller is not None:
        return []
    base = os.path.realpath(descriptor.base)
    from_file = _is_from_file(descriptor, base)
    if from_file and base not in shared:
        return [base]
    named = (os.path.join(launch.cwd, word) for word in launch.command[1:])  # `..` after a link
    return [path for path in named if _is_file(path) and (not from_file or is_within(os.path.realpath(path), base))]


def _is_from_file(descriptor: ModuleDescriptor, base: str) -> bool:
    source = Path(descriptor.source)
    return source.is_file() and os.path.realpath(source.parent) == base


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not is_pseudo(os.path.realpath(path))
