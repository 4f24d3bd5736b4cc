"""A module's description, compared with its descriptor (protocol, section 2).

Owns that comparison. It does not send the request, and does not look into the schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .capability import WORDS_MAX, canonical, reach
from .descriptor import is_version
from .errors import Forbidden, Internal, short

if TYPE_CHECKING:
    from .capability import Reach
    from .descriptor import ModuleDescriptor

OPS_MAX = 16_384
"""The most operations that a module describes, in ``inputs`` and in ``outputs``."""

NAME_MAX = 256
"""The most characters of an operation's name."""

PROTOCOL = 1
"""The version of the protocol."""


def check_description(described: object, descriptor: ModuleDescriptor, path: str) -> dict[str, Any]:
    """Return a description that fits. ``Internal`` for a wrong field, ``Forbidden`` for a capability not declared."""
    if not isinstance(described, dict):
        raise Internal(f"{path}: describe: expected an object, got {short(described)}")
    _check_identity(described, descriptor, f"{path}: describe")
    for field in ("inputs", "outputs"):
        _check_ops(described.get(field), f"{path}: describe: {field}")
    flawed = described.get("flawed")
    if flawed is not None and not (isinstance(flawed, dict) and all(isinstance(why, str) for why in flawed.values())):
        raise Internal(f"{path}: describe: flawed: expected an object of ops to text, got {short(flawed)}")
    words = described.get("capabilities")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Internal(f"{path}: describe: capabilities: expected a list of text, got {short(words)}")
    if len(words) > WORDS_MAX:
        raise Internal(f"{path}: describe: capabilities: expected at most {WORDS_MAX}, got {len(words)}")
    declared = reach(descriptor.capabilities + descriptor.spellings)
    for word in words:
        _check_claim(word, descriptor, declared, path)
    return described


def _check_identity(described: dict[str, Any], descriptor: ModuleDescriptor, where: str) -> None:
    protocol = described.get("protocol")
    if protocol is not None and (isinstance(protocol, bool) or protocol != PROTOCOL):
        raise Internal(f"{where}: protocol: this kernel speaks version {PROTOCOL}, got {short(protocol)}")
    for field, expected in (("name", descriptor.name), ("kind", descriptor.kind)):
        if described.get(field) != expected:
            raise Internal(
                f"{where}: {field}: {descriptor.source} says {expected!r}, got {short(described.get(field))}"
            )
    version = described.get("version")
    if descriptor.version not in (None, version):
        raise Internal(f"{where}: version: {descriptor.source} says {descriptor.version!r}, got {short(version)}")
    if not is_version(version):
        raise Internal(f"{where}: version: expected a semantic version like 1.2.0, got {short(version)}")


def _check_ops(schemas: object, where: str) -> None:
    if not isinstance(schemas, dict):
        raise Internal(f"{where}: expected an object that maps each op to a JSON Schema")
    if len(schemas) > OPS_MAX:
        raise Internal(f"{where}: expected at most {OPS_MAX} ops, got {len(schemas)}")
    for op, schema in schemas.items():
        if len(op) > NAME_MAX:
            raise Internal(f"{where}: expected names of at most {NAME_MAX} characters, got {len(op)}")
        if not isinstance(schema, dict | bool):
            raise Internal(f"{where}: expected an object that maps each op to a JSON Schema")


def _check_claim(word: str, descriptor: ModuleDescriptor, declared: Reach, path: str) -> None:
    """Hold one word against the descriptor as it is spelt there, else by its letters: no file is looked at."""
    if word in descriptor.spellings:
        return
    try:
        claim = canonical(word, descriptor.base, resolve=False)
    except ValueError as error:
        raise Internal(f"{path}: describe: capabilities: {error}") from None
    if not declared.covers(claim):
        raise Forbidden(f"{path}: describe claims {short(word, 200)}, which {descriptor.source} does not name")
