"""The modules of a replay that run for real, such as a new version of an orchestrator.

Owns which they are, and from which descriptor each is mounted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from amplifier_core import BadRequest, ModuleDescriptor, load_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._log import Entry

_REPORTS = ("module:start", "module:exit", "module:noise")


class Real:
    """The modules that run for real, by their paths. ``trusted`` runs those on this host without isolation."""

    def __init__(self, modules: Mapping[str, ModuleDescriptor | Path | str | None], *, trusted: bool) -> None:
        self.trusted = trusted
        self._modules = {path: _read(descriptor) for path, descriptor in modules.items()}
        self._mounted: set[str] = set()

    def __contains__(self, path: str | None) -> bool:
        return path in self._modules

    def __bool__(self) -> bool:
        return bool(self._modules)

    def descriptor(self, path: str, recorded: ModuleDescriptor) -> ModuleDescriptor:
        """Give the descriptor by which a module is mounted: the one that was named, or that of the recording."""
        self._mounted.add(path)
        return self._modules.get(path) or recorded

    def reports(self, entry: Entry) -> bool:
        """Tell whether an event says how such a module runs, which the recording knows nothing of."""
        return entry.module in self and entry.event in _REPORTS

    def check(self) -> None:
        """Raise ``BadRequest`` for a path at which the run has mounted nothing."""
        for path in self._modules:
            if path not in self._mounted:
                raise BadRequest(f"{path}: the recorded run has mounted no module there")


def _read(descriptor: ModuleDescriptor | Path | str | None) -> ModuleDescriptor | None:
    return load_descriptor(descriptor) if isinstance(descriptor, str | Path) else descriptor
