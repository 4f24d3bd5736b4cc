"""The confinement of one module, between the transport that starts its processes and the isolation that planned it.

Owns the blame: what foreign code does wrong here names the isolation, and starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amplifier_core._protocol.errors import Internal, KernelError
from amplifier_core.hookspecs import Confinement, Launch

if TYPE_CHECKING:
    from collections.abc import Sequence


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
