"""Modules in a sandbox: bubblewrap, with a system call filter, opens what was granted and nothing else (section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_core.hookspecs import hookimpl

from ._isolation import BwrapIsolation
from ._options import read_options

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["open_isolation"]


@hookimpl
def open_isolation(options: Mapping[str, Any]) -> BwrapIsolation:
    """Check the options; what this host allows is found out by the trial."""
    return BwrapIsolation(read_options(options))
