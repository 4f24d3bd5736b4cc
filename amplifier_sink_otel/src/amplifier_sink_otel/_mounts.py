"""What is known of the modules that are called: their kind and version, by the path where they are mounted.

Owns what ``mount:add`` tells. A call tells only the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ._event import members_of, text_of

if TYPE_CHECKING:
    from ._event import Event

_MOST = 10_000  # mounts that are kept; beyond, the oldest is forgotten


@attrs.frozen
class Mounted:
    """A module, as its mount told it."""

    kind: str = ""
    version: str = ""
    transport: str = ""


_UNKNOWN = Mounted()


class Mounts:
    """The modules of one kernel. A session that was forked from another one calls what that one has mounted."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Mounted] = {}

    def learn(self, event: Event) -> None:
        """Keep what a mount that has succeeded tells: for its session, and as the newest at its path."""
        if event.event != "mount:add" or event.failed or not event.module:
            return
        data = members_of(event.data)
        mounted = Mounted(*(text_of(data.get(name)) for name in ("kind", "version", "transport")))
        for session in (event.session_id or "", ""):
            self._known.pop((session, event.module), None)
            self._known[session, event.module] = mounted
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def find(self, event: Event) -> Mounted:
        """Give the module that is called."""
        path = event.module or ""
        return self._known.get((event.session_id or "", path)) or self._known.get(("", path), _UNKNOWN)
