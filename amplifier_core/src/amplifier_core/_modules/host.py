"""The host of one kernel: which isolation confines a module here, named or the only one, and proved by a trial.

Owns the choice of the isolations. The plugin owns the trial, and how the isolation enforces capabilities.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from amplifier_core._protocol.errors import BadRequest, Forbidden, KernelError, meant, one_line, short
from amplifier_core.hookspecs import AREAS, ISOLATIONS, TRANSPORTS, Host, Isolation

from .thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .plugins import Plugins

_INSTALL = "install amplifier-isolation-bwrap, or " if sys.platform == "linux" else ""
_TRUST = "call mount(..., trusted=True) to run it as an ordinary process"
_REMEDY = f"{_INSTALL}{_TRUST}"
_CHOOSE = "name one with Kernel(isolation=...)"
_TRIAL_SECONDS = _CLOSE_SECONDS = 5.0


_Wanted = Mapping[str, Any] | Isolation | Literal[False] | None


class KernelHost(Host):
    """The host, and the isolations in use. ``wanted`` and ``others`` are the arguments of ``Kernel``."""

    def __init__(self, plugins: Plugins, wanted: object, others: object = None) -> None:
        super().__init__()
        self._plugins = plugins
        self._wanted = _checked(wanted, "isolation")
        self._others = _checked_others(others)
        self._trials: dict[str | None, asyncio.Future[tuple[Isolation | None, dict[str, str]]]] = {}

    async def isolation(self, name: str | None = None) -> Isolation:
        """Give the isolation that a mount names, or the usual one. Raises ``Forbidden``: why it does not work here."""
        isolation, reasons = await self._choice(name)
        if isolation is None:
            if name is None and self._wanted is None and len(reasons) > 1:
                named = " and ".join(reasons)
                raise Forbidden(f"isolations {named} are installed, and none is named: {_CHOOSE}, or {_TRUST}")
            why = "; ".join(f"{each}: {reason}" for each, reason in reasons.items()) or "none is installed"
            if self._wanted is False and name is None:
                why = "the embedder set isolation=False"
            raise Forbidden(f"no isolation confines a local module on this host ({why}); {_REMEDY}")
        return isolation

    def check(self, name: object) -> None:
        """Raise ``BadRequest`` if a mount names no isolation that there is."""
        if name is None or (isinstance(name, str) and (name in self._others or name == self._usual())):
            return
        there = sorted({*self._others, *self._plugins.installed(ISOLATIONS)})
        if name not in there:
            raise BadRequest(f"isolation: expected one of {', '.join(there) or 'none'}, got {short(name)}")

    def doubts(self) -> Iterator[str]:
        """Say which isolations that the embedder named are not installed."""
        for each in (self._wanted, *self._others.values()):
            if isinstance(each, Mapping) and (name := each["type"]) not in self._plugins.installed(ISOLATIONS):
                installed = self._plugins.installed(ISOLATIONS)
                there = ", ".join(installed) or "none"
                yield f"isolation {short(name)} is not installed (installed: {there}){meant(name, installed)}"

    async def describe(self) -> dict[str, Any]:
        """Describe the isolations in use, why others cannot be used, and what the transports in use can do."""
        usual, reasons = await self._choice(None)
        found = None if usual is None else await _describe(usual)
        others = {}
        for name in dict.fromkeys((*self._others, *filter(None, self._trials))):
            isolation, why = await self._choice(name)
            reasons = why | reasons
            if isolation is not None:
                others[name] = await _describe(isolation)
        described = {name: hooks.describe_host() for name, hooks in self._plugins.loaded(TRANSPORTS).items()}
        transports = {name: description for name, description in described.items() if description is not None}
        told = {"platform": sys.platform, "isolation": found, "unusable": reasons, "transports": transports}
        return told | ({"isolations": others} if others else {})

    async def close(self) -> None:
        """Wait a bounded time for trials that still run, and close the isolations and the shared objects.

        Never raises.
        """
        trials = list(self._trials.values())
        if trials:
            await asyncio.wait(trials, timeout=_TRIAL_SECONDS)
        found = (trial.result()[0] for trial in trials if trial.done() and not trial.cancelled())
        await asyncio.gather(*map(_close, {id(each): each for each in found}.values()))
        await super().close()

    async def _choice(self, name: str | None) -> tuple[Isolation | None, dict[str, str]]:
        """Give the isolation that passes its trial, or why none does. Each trial runs once a kernel."""
        if name is not None and name not in self._others and name == self._usual():
            name = None
        if name not in self._trials:
            self._trials[name] = asyncio.ensure_future(self._try_each(name))
        return await asyncio.shield(self._trials[name])

    async def _try_each(self, wanted: str | None) -> tuple[Isolation | None, dict[str, str]]:
        candidates = self._candidates() if wanted is None else [(wanted, self._others.get(wanted, {"type": wanted}))]
        if len(candidates) > 1:  # the kernel prefers none: a weak one would weaken in silence
            return None, {name: f"one of several that are installed: {_CHOOSE}" for name, _ in candidates}
        if not candidates:
            return None, {}
        ((name, choice),) = candidates
        try:
            isolation, reason = await asyncio.to_thread(self._try, choice)
        except Exception as error:  # noqa: BLE001 - foreign code: an isolation that fails its trial is not used
            return None, {name: error.message if isinstance(error, KernelError) else one_line(error)}
        if not reason:
            return isolation, {}
        await _close(isolation)
        return None, {name: reason}

    def _try(self, choice: Mapping[str, Any] | Isolation) -> tuple[Isolation, str]:
        """Open one isolation and try it, in a thread: to import it takes time as well."""
        if isinstance(choice, Mapping):
            options = {key: value for key, value in choice.items() if key != "type"}
            isolation: Isolation = self._plugins.open(ISOLATIONS, choice["type"], options=options)
        else:
            isolation = choice
        return isolation, isolation.trial() or misfit(isolation.confines)

    def _candidates(self) -> Sequence[tuple[str, Mapping[str, Any] | Isolation]]:
        if self._wanted is False:
            return []
        if self._wanted is None:
            return [(name, {"type": name}) for name in self._plugins.installed(ISOLATIONS)]
        return [(self._usual() or "", self._wanted)]

    def _usual(self) -> str | None:
        """Name the isolation that the embedder has chosen for every mount, or the only one that is installed."""
        if isinstance(self._wanted, Isolation):
            return self._wanted.name
        if isinstance(self._wanted, Mapping):
            name: str = self._wanted["type"]
            return name
        installed = self._plugins.installed(ISOLATIONS) if self._wanted is None else ()
        return installed[0] if len(installed) == 1 else None


async def _describe(isolation: Isolation) -> dict[str, Any]:
    confines = [area for area in AREAS if area in isolation.confines]
    return {"name": isolation.name, "confines": confines, **await in_thread(isolation.describe)}


async def _close(isolation: Isolation | None) -> None:
    """End what an isolation has running, in bounded time. One that derives from nothing may have nothing to end."""
    if close := getattr(isolation, "close", None):
        with contextlib.suppress(Exception):  # foreign code, and nothing is left to undo
            async with asyncio.timeout(_CLOSE_SECONDS):
                await in_thread(close)


def misfit(confines: object) -> str:
    """Say what is wrong with what an isolation says that it confines; "" if nothing is."""
    if isinstance(confines, tuple | list | set | frozenset) and all(area in AREAS for area in confines):
        return ""
    return f"confines: expected some of {', '.join(AREAS)}, got {short(confines)}"


def _checked(wanted: object, name: str) -> _Wanted:
    """Check the embedder's choice. Raises ``BadRequest``."""
    if isinstance(wanted, str):
        return {"type": wanted}
    if wanted is None or wanted is False or isinstance(wanted, Isolation):
        return wanted
    if isinstance(wanted, dict) and isinstance(wanted.get("type"), str):
        return wanted
    raise BadRequest(f"{name}: expected a name, an object whose type is text, False or None, got {short(wanted)}")


def _checked_others(others: object) -> dict[str, Mapping[str, Any] | Isolation]:
    if others is None:
        return {}
    if not isinstance(others, Mapping) or not all(isinstance(name, str) for name in others):
        raise BadRequest(f"isolations: expected an object whose names are text, got {short(others)}")
    checked = {}
    for name, wanted in others.items():
        choice = _checked(wanted, f"isolations.{name}")
        if choice is None or choice is False:
            raise BadRequest(f"isolations.{name}: expected a name, or an object whose type is text, got {choice}")
        checked[name] = choice
    return checked
