"""What a module may hand on: its own grants, its own limits, and a share of its memory, to the modules that it mounts.

Owns these bounds. `mount` does the mounting, and policy has to allow it as well.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from amplifier_core._protocol.capability import SCRATCH, canonical, reach
from amplifier_core._protocol.descriptor import Limits, ModuleDescriptor
from amplifier_core._protocol.errors import BadRequest, Forbidden, Internal, short
from amplifier_core._protocol.json import encode_checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from amplifier_core._modules.module import Module
    from amplifier_core._sessions.namespace import Mount
    from amplifier_core.hookspecs import Connection

    from .turns import Invocation

DESCRIPTOR_BYTES = 64 * 1024
"""The largest descriptor that a module may send, in bytes of JSON."""

MOUNTS_MAX = 64
"""The most modules that run because a module mounted them, or one of those did."""

_SHOWN = 200  # characters of a capability in an error
_reach = lru_cache(maxsize=32)(reach)  # a module asks for its few grants again and again


def check_granted(caller: Invocation, words: Sequence[str]) -> Mount:
    """Hold capabilities against what a module has now: by its mount, and for this invocation. Give the mount.

    Raises ``Forbidden`` that names the first one that it lacks. Its grants end with the mount.
    """
    path = caller.module.path
    mount = caller.state.namespace.mounts.get(path)
    if mount is None or mount.module is not caller.module:
        raise Forbidden(f"{path} is no longer mounted, and its grants have ended")
    for granted in (mount.granted,) if caller.granted is mount.granted else (mount.granted, caller.granted):
        own = _reach(tuple(granted))
        for word in words:
            if not own.covers(word):
                shown = word if word.isprintable() and len(word) <= _SHOWN else short(word, _SHOWN)
                raise Forbidden(f"{path} was not granted {shown}", details={"capabilities": [word]})
    return mount


def read_descriptor(mapping: Mapping[str, Any], caller: Invocation) -> ModuleDescriptor:
    """Read the descriptor that a module sent, with limits that are within its own. Raises ``BadRequest``."""
    size = len(encode_checked(mapping))
    if size > DESCRIPTOR_BYTES:
        raise BadRequest(f"descriptor: expected at most {DESCRIPTOR_BYTES} bytes of JSON, got {size}")
    module = caller.module
    root = Path("/").absolute()  # on Windows with the letter of a drive, without which no path is absolute
    descriptor = ModuleDescriptor.from_mapping(mapping, base=root, caller=module.path)
    return attrs.evolve(descriptor, limits=_within(module, descriptor.limits))


def wanted_of(connection: Connection, descriptor: ModuleDescriptor) -> tuple[str, ...]:
    """List what policy has to allow if a module mounts this: a connection elsewhere is a wish, too.

    Else a module without network would reach with the kernel's hands what it cannot reach itself.
    """
    if descriptor.caller is None or connection.local:
        return descriptor.capabilities
    try:
        places = [canonical(f"net:connect:{place}", None) for place in connection.endpoints]
    except ValueError as error:
        raise Internal(f"transport {descriptor.transport['type']!r}: endpoints: {error}") from None
    return tuple(dict.fromkeys((*descriptor.capabilities, *(places or ["net:connect:*"]))))


def handed_on(words: Sequence[str]) -> list[str]:
    """List those capabilities that a module can hand on only if it has them.

    A scratch folder is each module's own, and of ``x-`` words policy alone knows the meaning.
    """
    scratch = reach([f"fs:write:{SCRATCH}"])
    return [word for word in words if not word.startswith("x-") and not scratch.covers(word)]


def take_share(module: Module) -> None:
    """Count a module for all those to whom it is owed, until it is closed. Raises ``BadRequest`` if one has no room."""
    owners = list(module.mounters())
    for owner in owners:
        if len(owner.mounted) >= MOUNTS_MAX:
            raise BadRequest(f"{owner.path} has {MOUNTS_MAX} modules mounted, with those that they mounted: the limit")
        left = _memory_left(owner)
        if left is not None and (module.descriptor.limits.memory_bytes or 0) > left:
            raise BadRequest(
                f"descriptor: $.limits.memory_bytes: {owner.path} may hand on {owner.descriptor.limits.memory_bytes} "
                f"bytes in all, and {left} are left"
            )
    for owner in owners:
        owner.mounted.add(module)


def _memory_left(owner: Module) -> int | None:
    most = owner.descriptor.limits.memory_bytes
    return None if most is None else most - sum(each.descriptor.limits.memory_bytes or 0 for each in owner.mounted)


def _within(module: Module, asked: Limits) -> Limits:
    """Give the limits that were asked for. Each that was left out is the module's own. Raises ``BadRequest``."""
    own = attrs.asdict(module.descriptor.limits)
    own["message_bytes"] = module.descriptor.message_bytes
    left = [left for each in (module, *module.mounters()) if (left := _memory_left(each)) is not None]
    found = {name: value for name, value in attrs.asdict(asked).items() if value is not None}
    for name, most in own.items():
        if most is not None and found.get(name, 0) > most:
            where = f"descriptor: $.limits.{name}"
            raise BadRequest(f"{where}: expected at most the {most} of {module.path}, got {found[name]}")
    own["memory_bytes"] = max(1, min(left)) if left else None
    return Limits(**(own | found))
