"""The choice of a wire by the descriptor's transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._connection import ConnectionWire
from ._http import HttpWire
from ._stdio import StdioWire

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_tools._check._report import Report

    from ._lane import Wire

__all__ = ["open_wire"]


def open_wire(descriptor: ModuleDescriptor, report: Report, isolation: str | None, *, trusted: bool) -> Wire:
    """Give the wire that sees most of a module. Raises ``BadRequest`` for a ``transport`` that does not fit."""
    kind = descriptor.transport["type"]
    if kind == "stdio":
        return StdioWire(descriptor, report, isolation, trusted=trusted)
    if kind == "http":
        return HttpWire(descriptor, report)
    return ConnectionWire(descriptor, report, isolation, trusted=trusted)
