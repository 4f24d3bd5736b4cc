"""What a worker says that its host enforces, as it stands beside a description, and how far that is believed.

Owns its shape. It is the word of the host of that worker, whose pool has to be alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Host(msgspec.Struct):
    isolation: str | None = None
    granted: list[str] = []
    unenforced: list[str] = []


class _Described(msgspec.Struct):
    host: _Host | None = None


def unenforced_there(text: bytes, capabilities: Sequence[str]) -> tuple[str, ...]:
    """List those of some capabilities that nothing enforces there. ``text`` is a reply to ``describe``.

    That is all of them, unless the module is isolated there, in all respects, with nothing granted that is not among
    them.
    """
    try:
        host = msgspec.json.decode(text, type=_Described).host
    except msgspec.MsgspecError:
        host = None
    if host is None or host.isolation is None or not set(host.granted) <= set(capabilities):
        return tuple(capabilities)
    if any(word.startswith("isolation.") for word in host.unenforced):
        return tuple(capabilities)
    return tuple(word for word in capabilities if word in host.unenforced)
