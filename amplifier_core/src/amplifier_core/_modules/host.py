"""The host of one kernel: which isolation confines the modules here, named or the only one, and proved by a trial.

Owns the choice of the isolation. The plugin owns the trial, and how the isolation enforces capabilities.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

from amplifier_core._protocol.errors import BadRequest, Forbidden, KernelError, meant, one_line, short
from amplifier_core.hookspecs import AREAS, ISOLATIONS, TRANSPORTS, Host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Isolation

    from .plugins import Plugins

_INSTALL = "install amplifier-isolation-bwrap, or " if sys.platform == "linux" else ""
_TRUST = "call mount(..., trusted=True) to run it as an ordinary process"
_REMEDY = f"{_INSTALL}{_TRUST}"
_CHOOSE = "name one with Kernel(isolation=...)"
_TRIAL_SECONDS = 5.0


class KernelHost(Host):
    """The host, and the isolation in use. ``wanted`` is the argument ``isolation`` of ``Kernel``."""

    def __init__(self, plugins: Plugins, wanted: str | Mapping[str, Any] | Literal[False] | None) -> None:
        super().__init__()
        self._plugins = plugins
        self._wanted = _checked(wanted)
        self._trial: asyncio.Future[tuple[Isolation | None, dict[str, str]]] | None = None

    async def isolation(self) -> Isolation:
        """Give the isolation that works here. Raises ``Forbidden``: no isolation works, why, and what to do."""
        isolation, reasons = await self._choice()
        if isolation is None:
            if self._wanted is None and len(reasons) > 1:
                named = " and ".join(reasons)
                raise Forbidden(f"isolations {named} are installed, and none is named: {_CHOOSE}, or {_TRUST}")
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "none is installed"
            if self._wanted is False:
                why = "the embedder set isolation=False"
            raise Forbidden(f"no isolation confines a local module on this host ({why}); {_REMEDY}")
        return isolation

    def doubt(self) -> str:
        """Say if the isolation that the embedder named is not installed; "" if it is, or none was named."""
        if not isinstance(self._wanted, dict):
            return ""
        name, installed = self._wanted["type"], self._plugins.installed(ISOLATIONS)
        if name in installed:
            return ""
        there = ", ".join(installed) or "none"
        return f"isolation {short(name)} is not installed (installed: {there}){meant(name, installed)}"

    async def describe(self) -> dict[str, Any]:
        """Describe the isolation in use, why others cannot be used, and what the transports in use can do."""
        isolation, reasons = await self._choice()
        found = None
        if isolation is not None:
            confines = [area for area in AREAS if area in isolation.confines]
            found = {"name": isolation.name, "confines": confines, **isolation.describe()}
        described = {name: hooks.describe_host() for name, hooks in self._plugins.loaded(TRANSPORTS).items()}
        transports = {name: description for name, description in described.items() if description is not None}
        return {"platform": sys.platform, "isolation": found, "unusable": reasons, "transports": transports}

    async def close(self) -> None:
        """Wait a bounded time for a trial that still runs, and close the shared objects. Never raises."""
        if self._trial is not None:
            await asyncio.wait((self._trial,), timeout=_TRIAL_SECONDS)
        await super().close()

    async def _choice(self) -> tuple[Isolation | None, dict[str, str]]:
        """Give the isolation that passes its trial, or why none does. The trial runs once a kernel."""
        if self._trial is None:
            self._trial = asyncio.ensure_future(self._try_each())
        return await asyncio.shield(self._trial)

    async def _try_each(self) -> tuple[Isolation | None, dict[str, str]]:
        candidates = self._candidates()
        if len(candidates) > 1:  # the kernel prefers none: a weak one would weaken in silence
            return None, {name: f"one of several that are installed: {_CHOOSE}" for name, _ in candidates}
        if not candidates:
            return None, {}
        ((name, options),) = candidates
        try:
            isolation, reason = await asyncio.to_thread(self._try, name, options)
        except Exception as error:  # noqa: BLE001 - foreign code: an isolation that fails its trial is not used
            return None, {name: error.message if isinstance(error, KernelError) else one_line(error)}
        return (None, {name: reason}) if reason else (isolation, {})

    def _try(self, name: str, options: Mapping[str, Any]) -> tuple[Isolation, str]:
        """Open one isolation and try it, in a thread: to import it takes time as well."""
        isolation: Isolation = self._plugins.open(ISOLATIONS, name, options=options)
        return isolation, isolation.trial() or misfit(isolation.confines)

    def _candidates(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        if self._wanted is False:
            return []
        if self._wanted is None:
            return [(name, {}) for name in self._plugins.installed(ISOLATIONS)]
        return [(self._wanted["type"], {key: value for key, value in self._wanted.items() if key != "type"})]


def misfit(confines: object) -> str:
    """Say what is wrong with what an isolation says that it confines; "" if nothing is."""
    if isinstance(confines, tuple | list | set | frozenset) and all(area in AREAS for area in confines):
        return ""
    return f"confines: expected some of {', '.join(AREAS)}, got {short(confines)}"


def _checked(wanted: object) -> Mapping[str, Any] | Literal[False] | None:
    """Check the embedder's choice: an object whose type is a name, False or None. Raises ``BadRequest``."""
    if isinstance(wanted, str):
        return {"type": wanted}
    if wanted is None or wanted is False:
        return wanted
    if isinstance(wanted, dict) and isinstance(wanted.get("type"), str):
        return wanted
    raise BadRequest(f"isolation: expected a name, an object whose type is text, False or None, got {short(wanted)}")
