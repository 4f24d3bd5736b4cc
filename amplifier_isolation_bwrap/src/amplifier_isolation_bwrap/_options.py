"""What an embedder may say beside ``"type": "bwrap"``: which program, and the limits inside.

Owns their names, their defaults and their errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB = 1024 * 1024


@attrs.frozen(kw_only=True)
class Options:
    """The limits hold for one module with all that it starts; ``open_files`` and ``file_bytes`` for each process."""

    program: str | None = None
    """The path of bwrap; without it the one on PATH, or else the one of the extra ``bundled``."""
    cgroup: str | None = None
    """A folder below which cgroups may be made, with the pids controller: what counts processes of uid 0."""
    processes: int = 512
    """Processes and threads."""
    open_files: int = 1024
    file_bytes: int = 1024 * _MIB
    """The size of one file."""
    scratch_bytes: int = 256 * _MIB
    """What ``$tmp`` holds; it is memory. ``/dev/shm``, which comes with it, holds as much again."""


def read_options(given: Mapping[str, Any]) -> Options:
    """Read them strictly; raises ``BadRequest`` with one line."""
    kinds = {field.name: int if isinstance(field.default, int) else str for field in attrs.fields(Options)}
    for name, value in given.items():
        if name not in kinds:
            raise BadRequest(f"isolation bwrap: {name}: expected one of {', '.join(kinds)}")
        if type(value) is not kinds[name] or (isinstance(value, int) and value <= 0):
            expected = "a positive integer" if kinds[name] is int else "a path"
            raise BadRequest(f"isolation bwrap: {name}: expected {expected}, got {value!r}")
    return Options(**given)
