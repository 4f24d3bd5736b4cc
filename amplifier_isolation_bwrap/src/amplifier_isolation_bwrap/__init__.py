"""An isolation on bubblewrap: a module can access what was granted, and nothing else (section 6 of the protocol)."""

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
    """Check the options. Whether it works on this host is the trial's part."""
    return BwrapIsolation(read_options(options))
