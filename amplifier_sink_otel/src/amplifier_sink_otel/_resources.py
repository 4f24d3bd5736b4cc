"""Resources: who a kernel is, as OpenTelemetry tells it with each message.

Owns their attributes: the embedder's, and what ``kernel:start`` says.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from . import _conventions as words
from ._event import members_of, scalar_of

if TYPE_CHECKING:
    from ._event import Event
    from ._options import Options

_MOST = 1000  # kernels in a log; of the others, only the ids are told


class Resources:
    """The resource of each kernel. A sink has one kernel, a log may have many."""

    def __init__(self, options: Options) -> None:
        named = {"service.name": options.service} if options.service else {}
        sdk = {"name": "opentelemetry", "language": "python", "version": version("opentelemetry-sdk")}
        base = Resource({"service.name": "amplifier", **{f"telemetry.sdk.{name}": each for name, each in sdk.items()}})
        if options.environment:
            base = base.merge(OTELResourceDetector().detect())
        self._own = Resource({**named, **options.resource}, words.SCHEMA_URL)
        self._base = base
        self._known: dict[str, Resource] = {}

    def learn(self, event: Event) -> None:
        """Keep what ``kernel:start`` tells."""
        if event.event != "kernel:start" or len(self._known) >= _MOST:
            return
        data = members_of(event.data)
        told = {**data, **{f"versions.{name}": each for name, each in members_of(data.get("versions")).items()}}
        found = {name: scalar_of(told.get(member)) for member, name in words.KERNEL_FIELDS.items()}
        self._known[event.kernel] = self._made(event.kernel, {n: each for n, each in found.items() if each is not None})

    def find(self, event: Event) -> Resource:
        """Give the resource of the kernel that an event is of."""
        known = self._known.get(event.kernel)
        if known is None:
            known = self._made(event.kernel, {})
            if len(self._known) < _MOST:
                self._known[event.kernel] = known
        return known

    def _made(self, kernel: str, told: dict[str, str | int | float | bool]) -> Resource:
        return self._base.merge(Resource({"service.instance.id": kernel, **told})).merge(self._own)
