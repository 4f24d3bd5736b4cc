"""The isolation of a replay: it confines nothing, since nothing runs, and says what the one of the run said.

Owns what was told of it. Its plans are found by the place that a connection writes into its launch.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError
from amplifier_core.hookspecs import AREAS, Confinement, Isolation, Launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core import ModuleDescriptor

_AREA = "isolation."


def launch_at(place: tuple[str, str]) -> Launch:
    """Make a launch that names a place, and no program."""
    return Launch(command=place, cwd="/", env={})


class RecordedIsolation(Isolation):
    """An isolation by the name and with the promises of another one.

    ``live`` confines what is mounted when the run goes on, or says why nothing does. ``others`` are closed with it.
    """

    def __init__(
        self,
        live: Isolation | KernelError | None = None,
        others: Mapping[str, Isolation | KernelError] = MappingProxyType({}),
    ) -> None:
        self.name = "none"
        self.confines = AREAS
        self.works = True
        self.is_used = False
        self.failure = ""
        """What was said of the mount that began last, if it failed."""
        self._live = live
        self._others = others
        self._lives = False
        self._left_open: set[str] = set()
        self._shown: dict[tuple[str, ...], Mapping[str, Any]] = {}
        self._refused: dict[tuple[str, ...], KernelError] = {}

    def learn(self, place: tuple[str, str], name: str, unenforced: Sequence[str], shown: Mapping[str, Any]) -> None:
        """Take what the log tells of one mount."""
        self.is_used = True
        self.name = name
        open_areas = {word.removeprefix(_AREA) for word in unenforced if word.startswith(_AREA)}
        self.confines = tuple(area for area in AREAS if area not in open_areas)
        self._left_open |= set(unenforced)
        self._shown[place] = shown

    def refuse(self, place: tuple[str, str], error: KernelError) -> None:
        """Fail to plan one mount, as the isolation of the run did."""
        self._refused[place] = error

    def learn_live(self) -> None:
        """Take the isolation with which the run goes on, for a mount of which the log tells nothing yet."""
        if isinstance(self._live, Isolation):
            self.name, self.confines = self._live.name, tuple(self._live.confines)
        elif not self.is_used:
            self.works = False
        self.is_used = True

    def go_on(self) -> None:
        """Confine what is mounted from now on."""
        self._lives = True
        if isinstance(self._live, Isolation):
            self.learn_live()

    def trial(self) -> str:
        """Pass, or fail, as the isolation of the run did."""
        return "" if self.works else "it did not work"

    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List what the isolation of the run did not enforce, or the one that confines what is mounted now."""
        if self._lives and isinstance(self._live, Isolation):
            return tuple(self._live.unenforced(capabilities))
        return tuple(word for word in capabilities if word in self._left_open)

    def why_unenforced(self, capability: str) -> str:
        """Say what was said in the failure of the mount, or what the one says that confines what is mounted now."""
        if self._lives and isinstance(self._live, Isolation):
            return self._live.why_unenforced(capability)
        found = re.search(re.escape(capability) + r" \((.*?)\)(?:, | on this host)", self.failure)
        return found[1] if found else ""

    def close(self) -> None:
        """End what those have that confine modules now."""
        for each in (self._live, *self._others.values()):
            if isinstance(each, Isolation):
                each.close()

    def plan(self, launch: Launch, descriptor: ModuleDescriptor) -> Confinement:
        """Give what was shown to policy. A mount of which the log does not know it is planned for real."""
        place = tuple(launch.command)
        shown = self._shown.pop(place, None)
        if place in self._refused:
            raise self._refused.pop(place)
        if isinstance(self._live, Isolation) and shown is None:
            return self._live.plan(launch, descriptor)
        if isinstance(self._live, KernelError) and shown is None:
            raise Forbidden(self._live.message)
        return _Planned(shown or {})


class _Planned(Confinement):
    def __init__(self, shown: Mapping[str, Any]) -> None:
        self.shown = shown

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Refuse to start anything: a module that is to run for real has to be trusted."""
        raise Forbidden("a replay confines nothing: a module that runs for real has to be trusted")
