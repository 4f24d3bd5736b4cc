"""The host: which isolation confines modules here, found by trying, and what the connections of one kernel share.

Owns the choice of the isolation and its trial. What is enforced how is the plugin's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from amplifier_core._protocol.errors import BadRequest, Forbidden, Internal, KernelError, one_line, short
from amplifier_core.hookspecs import ISOLATIONS, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amplifier_core.hookspecs import Isolation

    from .plugins import Plugins

T = TypeVar("T")

_INSTALL = "install amplifier-isolation-bwrap, or " if sys.platform == "linux" else ""
_WAYS_OUT = f"{_INSTALL}say mount(..., trusted=True) to run it as an ordinary process"
_CLOSE_SECONDS = 5.0


class Host:
    """One kernel's view of the host. ``wanted`` is what the embedder chose: a name, options, False, or None."""

    def __init__(self, plugins: Plugins, wanted: str | Mapping[str, Any] | Literal[False] | None) -> None:
        self._plugins = plugins
        self._wanted = _checked(wanted)
        self._trial: asyncio.Future[tuple[Isolation | None, dict[str, str]]] | None = None
        self._shared: dict[Callable[[], Any], Any] = {}

    def shared(self, make: Callable[[], T]) -> T:
        """Give the one thing that ``make`` makes for this kernel."""
        if make not in self._shared:
            self._shared[make] = make()
        thing: T = self._shared[make]
        return thing

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
        """Close what is shared, in bounded time; never raises."""
        if self._trial is not None:
            await asyncio.wait((self._trial,), timeout=_CLOSE_SECONDS)
        things, self._shared = list(self._shared.values()), {}
        for thing in things:
            with contextlib.suppress(Exception):  # foreign code, and there is nothing left to undo
                await asyncio.wait_for(thing.close(), _CLOSE_SECONDS)

    async def _tried(self) -> tuple[Isolation | None, dict[str, str]]:
        """Find the first isolation that passes its trial, once; whoever else asks meanwhile waits for the same."""
        if self._trial is None:
            self._trial = asyncio.ensure_future(self._try_each())
        return await asyncio.shield(self._trial)

    async def _try_each(self) -> tuple[Isolation | None, dict[str, str]]:
        reasons: dict[str, str] = {}
        for name, options in self._candidates():
            try:
                isolation = self._open(name, options)
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

    def _open(self, name: str, options: Mapping[str, Any]) -> Isolation:
        isolation: Isolation | None = self._plugins.hook(ISOLATIONS, name).open_isolation(options=options)
        if isolation is None:
            raise BadRequest("the plugin opens nothing for these options")
        missing = [part for part in _ISOLATION if not hasattr(isolation, part)]
        if missing:
            raise Internal(f"the plugin opened {type(isolation).__name__}, which has no {missing[0]}")
        return isolation


_ISOLATION = ("name", "trial", "describe", "unenforced", "confine")


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
