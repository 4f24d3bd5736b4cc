"""What an isolation does for one module: in what it confines it, which capabilities it enforces, and each launch.

Owns the blame: what foreign code does wrong here names the isolation, and starts nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from amplifier_core._protocol.errors import Internal, KernelError, one_line
from amplifier_core._protocol.json import NotJson, encode
from amplifier_core.hookspecs import AREAS, Confinement, Launch

from .grace import bounded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from amplifier_core.hookspecs import Isolation

_END_SECONDS = 10.0

_ABOUT = {"fs": "files", "net": "network", "env": "environment"}  # by the namespace of a capability


def unconfined_by(isolation: Isolation) -> tuple[str, ...]:
    """Name in what an isolation does not confine a module, for the log and for policy."""
    return tuple(f"isolation.{area}" for area in AREAS if area not in isolation.confines)


def left_open_by(isolation: Isolation, words: Sequence[str]) -> tuple[str, ...]:
    """List those of some capabilities of the host that an isolation does not enforce.

    Those are the ones that it says, and those about what it does not confine, since they mean nothing there. Raises
    what the isolation raises, as a ``KernelError``.
    """
    try:
        refused = tuple(isolation.unenforced(words))
    except Exception as error:
        raise KernelError.from_exception(error, f"isolation {isolation.name!r}") from error
    return tuple(word for word in words if word in refused or _ABOUT[word.partition(":")[0]] not in isolation.confines)


def why_left_open(isolation: Isolation, word: str) -> str:
    """Say why an isolation does not enforce a capability, if it tells: ``WORD (why)``."""
    tell = getattr(isolation, "why_unenforced", None)  # one that derives from nothing may have none
    try:
        why = tell(word) if tell else ""
    except Exception as error:  # noqa: BLE001 - foreign code, and the capability is refused whatever it says
        why = one_line(error)
    return f"{word} ({why})" if why else word


class CheckedConfinement(Confinement):
    """A confinement that gives a ``Launch`` or raises a ``KernelError``, and ends what each launch has left."""

    def __init__(self, isolation: str, planned: Confinement) -> None:
        self.shown: Mapping[str, Any] = planned.shown
        self._isolation = f"isolation {isolation!r}"
        self._planned = planned
        self._endings: list[_Ending] = []

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Confine one launch. ``Internal`` is the fault of the isolation: then there is nothing to start."""
        try:
            confined: object = self._planned.confine(launch, granted)
        except Exception as error:
            raise KernelError.from_exception(error, self._isolation) from error
        if not isinstance(confined, Launch):
            what = type(confined).__name__
            raise Internal(f"{self._isolation} broke its contract: confine gave {what}, expected a Launch")
        if confined.end is None:
            return confined
        ending = _Ending(self._isolation, confined.end)
        self._endings = [*(each for each in self._endings if not each.is_over()), ending]
        return replace(confined, end=ending)

    async def end(self) -> None:
        """End what the launches have left that nobody has ended. It takes a bounded time, and never raises."""
        await asyncio.gather(*(ending() for ending in self._endings))


class _Ending:
    """The end of what an isolation has for one process outside of it. It comes once, however often it is asked for."""

    def __init__(self, isolation: str, end: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self._isolation = isolation
        self._end = end
        self._task: asyncio.Task[Mapping[str, Any]] | None = None

    def is_over(self) -> bool:
        return self._task is not None and self._task.done()

    def __call__(self) -> Awaitable[Mapping[str, Any]]:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"end of {self._isolation}")
        return asyncio.shield(self._task)

    async def _run(self) -> Mapping[str, Any]:
        """Give what there is to tell. Nothing is left to undo if it fails, but people need to know."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                told = dict(await bounded(self._end(), self._isolation))
            encode(told, "end")
        except asyncio.CancelledError:  # by its own code, or with the loop, which waits for it no longer
            return {"end_error": f"{self._isolation} was cancelled before it had ended what it started"}
        except TimeoutError:
            return {"end_error": f"{self._isolation} had not ended what it started after {_END_SECONDS:g} s"}
        except NotJson as error:
            return {"end_error": f"{self._isolation} told what is not JSON: {error}"}
        except Exception as error:  # noqa: BLE001 - foreign code
            return {"end_error": f"{self._isolation} raised {one_line(error)}"}
        return told
