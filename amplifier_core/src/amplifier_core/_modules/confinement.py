"""What an isolation does for one module: in what it confines it, which capabilities it enforces, and each launch.

Owns the blame: what foreign code does wrong here names the isolation, and starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import Internal, KernelError
from amplifier_core.hookspecs import AREAS, Confinement, Launch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amplifier_core.hookspecs import Isolation


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


class CheckedConfinement(Confinement):
    """A confinement that gives a ``Launch`` or raises a ``KernelError``."""

    def __init__(self, isolation: str, planned: Confinement) -> None:
        self.shown = planned.shown
        self._isolation = f"isolation {isolation!r}"
        self._planned = planned

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Confine one launch. ``Internal`` is the fault of the isolation: then there is nothing to start."""
        try:
            confined: object = self._planned.confine(launch, granted)
        except Exception as error:
            raise KernelError.from_exception(error, self._isolation) from error
        if not isinstance(confined, Launch):
            what = type(confined).__name__
            raise Internal(f"{self._isolation} broke its contract: confine gave {what}, expected a Launch")
        return confined
