"""The host of one kernel: which isolation confines modules here, found by trying.

Owns the choice of the isolation and its trial. How the isolation enforces anything is the plugin's.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

from amplifier_core._protocol.errors import BadRequest, Forbidden, KernelError, one_line, short
from amplifier_core.hookspecs import ISOLATIONS, TRANSPORTS, Host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core.hookspecs import Isolation

    from .plugins import Plugins

_INSTALL = "install amplifier-isolation-bwrap, or " if sys.platform == "linux" else ""
_WAYS_OUT = f"{_INSTALL}say mount(..., trusted=True) to run it as an ordinary process"
_TRIAL_SECONDS = 5.0


class KernelHost(Host):
    """The host, and the isolation in use. ``wanted`` is the embedder's choice: a name, options, False, or None."""

    def __init__(self, plugins: Plugins, wanted: str | Mapping[str, Any] | Literal[False] | None) -> None:
        super().__init__()
        self._plugins = plugins
        self._wanted = _checked(wanted)
        self._trial: asyncio.Future[tuple[Isolation | None, dict[str, str]]] | None = None

    async def isolation(self) -> Isolation:
        """Give the isolation that works here. Raises ``Forbidden`` that names the reasons and the ways out."""
        isolation, reasons = await self._tried()
        if isolation is None:
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "none is installed"
            if self._wanted is False:
                why = "the embedder said isolation=False"
            raise Forbidden(f"nothing isolates a local module on this host ({why}); {_WAYS_OUT}")
        return isolation

    async def describe(self) -> dict[str, Any]:
        """Say what isolates modules here, for those that do not why, and what the transports in use can do."""
        isolation, reasons = await self._tried()
        found = None if isolation is None else {"name": isolation.name, **isolation.describe()}
        transports = {name: hooks.describe_host() for name, hooks in self._plugins.loaded(TRANSPORTS).items()}
        told = {name: said for name, said in transports.items() if said is not None}
        return {"platform": sys.platform, "isolation": found, "unusable": reasons, "transports": told}

    async def close(self) -> None:
        """Wait for a trial that still runs, for a bounded time, and close what is shared. Never raises."""
        if self._trial is not None:
            await asyncio.wait((self._trial,), timeout=_TRIAL_SECONDS)
        await super().close()

    async def _tried(self) -> tuple[Isolation | None, dict[str, str]]:
        """Find the first isolation that passes its trial, once; whoever else asks meanwhile waits for the same."""
        if self._trial is None:
            self._trial = asyncio.ensure_future(self._try_each())
        return await asyncio.shield(self._trial)

    async def _try_each(self) -> tuple[Isolation | None, dict[str, str]]:
        reasons: dict[str, str] = {}
        for name, options in self._candidates():
            try:
                isolation: Isolation = self._plugins.open(ISOLATIONS, name, options=options)
                reason = await asyncio.to_thread(isolation.trial)
            except Exception as error:  # noqa: BLE001 - foreign code: what fails its trial is not used
                reasons[name] = error.message if isinstance(error, KernelError) else one_line(error)
                continue
            if not reason:
                return isolation, reasons
            reasons[name] = reason
        return None, reasons

    def _candidates(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        if self._wanted is False:
            return []
        if self._wanted is None:
            return [(name, {}) for name in self._plugins.installed(ISOLATIONS)]
        return [(self._wanted["type"], {key: value for key, value in self._wanted.items() if key != "type"})]


def _checked(wanted: object) -> Mapping[str, Any] | Literal[False] | None:
    """Read what the embedder chose. Raises ``BadRequest``."""
    if isinstance(wanted, str):
        return {"type": wanted}
    if wanted is None:
        return None
    if wanted is False:
        return False
    if isinstance(wanted, dict) and isinstance(wanted.get("type"), str):
        return wanted
    raise BadRequest(f"isolation: expected a name, an object whose type is text, False or None, got {short(wanted)}")
