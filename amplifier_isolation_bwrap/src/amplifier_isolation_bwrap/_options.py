"""The options that an embedder may give beside ``"type": "bwrap"``: the program, and the limits of a module.

Owns their names, defaults and errors. How the limits are set is not here.
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
    """``open_files`` and ``file_bytes`` limit each process; the others, one module with all processes it starts."""

    program: str | None = None
    """The path of bwrap. The default is the one on PATH, or else that of the extra ``bundled``."""
    cgroup: str | None = None
    """A folder below which cgroups with the pids controller can be made, to limit processes of uid 0."""
    processes: int = 512
    """Processes and threads."""
    open_files: int = 1024
    file_bytes: int = 1024 * _MIB
    """The size of one file."""
    scratch_bytes: int = 256 * _MIB
    """The size of ``$tmp``, in memory. ``/dev/shm`` comes with it, and is the same folder."""
    connections: int = 128
    """Connections at once to the hosts that were granted; others wait."""
    idle_seconds: int = 600
    """Seconds after which such a connection is reset if nothing goes through."""


def read_options(given: Mapping[str, Any]) -> Options:
    """Read the options. Raises ``BadRequest`` for an unknown name and for a wrong type or value."""
    kinds = {field.name: int if isinstance(field.default, int) else str for field in attrs.fields(Options)}
    for name, value in given.items():
        if name not in kinds:
            raise BadRequest(f"isolation bwrap: {name}: expected one of {', '.join(kinds)}")
        if type(value) is not kinds[name] or (isinstance(value, int) and value <= 0):
            expected = "a positive integer" if kinds[name] is int else "a path"
            raise BadRequest(f"isolation bwrap: {name}: expected {expected}, got {value!r}")
    return Options(**given)
