"""The plan of one module: what was found out about its launch, once, when it was mounted. Each start uses it.

Owns the search for it. What is mounted where, and how the process is limited, is not here.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs

from amplifier_core import Unreachable

from ._by_module import find_wanted
from ._code import find_code
from ._dependencies import find_dependencies
from ._paths import SharedFolders, resolve
from ._search import LedElsewhereError, Search, WritablePlaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core import ModuleDescriptor
    from amplifier_core.hookspecs import Launch

    from ._paths import ResolvedPath

_KEPT = 256  # plans


@attrs.frozen
class Plan:
    """What a launch needs."""

    command: tuple[str, ...]
    cwd: str
    real_cwd: str
    paths: tuple[ResolvedPath, ...] = ()
    """What the sandbox has to have beside the system and what is granted."""
    caller: str | None = None
    """The path of the module that wrote the descriptor."""


class Planner:
    """Makes the plans of one kernel. It remembers where its modules may write, and is not led elsewhere from there."""

    def __init__(self) -> None:
        self._shared = SharedFolders()
        self._writable = WritablePlaces()
        self._plans: dict[tuple[object, ...], Plan] = {}

    def granted(self, capabilities: Sequence[str]) -> None:
        """Note what a module is started with."""
        self._writable.add(capabilities)

    def plan(self, launch: Launch, descriptor: ModuleDescriptor) -> Plan:
        """Look at the host. Raises ``Unreachable`` or ``Forbidden``.

        A link that a module changed may lead elsewhere now. Then the last plan of the same launch holds, if any.
        """
        if descriptor.caller is not None:
            return self._plan_for_module(launch, descriptor.caller)
        place = (launch.cwd, str(descriptor.base), descriptor.source)
        key = (launch.command, place, descriptor.capabilities, *sorted(launch.env.items()))
        try:
            plan = self.search(launch, descriptor)
        except LedElsewhereError:
            if key not in self._plans:
                raise
            return self._plans[key]
        self._plans = dict([*self._plans.items(), (key, plan)][-_KEPT:])
        return plan

    def search(self, launch: Launch, descriptor: ModuleDescriptor | None) -> Plan:
        """Look for what a launch needs, and for the code that the descriptor brings."""
        search = Search(self._writable)
        code = []
        if descriptor is not None:
            _check_capabilities(descriptor, search)
            code = find_code(launch, descriptor, self._shared, search)
        found = find_dependencies(launch.command, launch.cwd, launch.env, self._shared, search)
        if found.fault:  # else a shell would guess, in the sandbox alone
            raise Unreachable(found.fault)
        if not os.path.isdir(launch.cwd):
            raise Unreachable(f"folder {launch.cwd}: {os.strerror(errno.ENOENT)}")
        cwd = search.resolve(launch.cwd).real
        return Plan((found.program, *launch.command[1:]), launch.cwd, cwd, (*code, *found.paths.values()))

    def _plan_for_module(self, launch: Launch, caller: str) -> Plan:
        """Plan what a module asked for. It looks at nothing but the system's programs."""
        program = find_wanted(launch.command[0], launch.env, caller, Search(self._writable))
        return Plan((program, *launch.command[1:]), launch.cwd, launch.cwd, caller=caller)


def _check_capabilities(descriptor: ModuleDescriptor, search: Search) -> None:
    """Refuse a granted path that a module may have led elsewhere before the descriptor was read."""
    for word in descriptor.spellings:
        if word.startswith(("fs:read:/", "fs:write:/")):
            namespace, action, path = word.split(":", 2)
            try:
                search.resolve(path)
            except LedElsewhereError:
                if f"{namespace}:{action}:{resolve(path).real}" in descriptor.capabilities:
                    raise
