"""A module's description, compared with its descriptor (protocol, section 2).

Owns that comparison. It does not send the request: the mount does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .capability import WORDS_MAX, canonical, reach
from .errors import Forbidden, Internal, short

if TYPE_CHECKING:
    from .capability import Reach
    from .descriptor import ModuleDescriptor

OPS_MAX = 16_384
"""The most operations that a module describes, in ``inputs`` and in ``outputs``."""

NAME_MAX = 256
"""The most characters of an operation's name."""


def check_description(described: object, descriptor: ModuleDescriptor, path: str) -> dict[str, Any]:
    """Return a description that fits. ``Internal`` for a wrong field, ``Forbidden`` for a capability not declared."""
    if not isinstance(described, dict):
        raise Internal(f"{path}: describe: expected an object, got {short(described)}")
    for field, expected in (("name", descriptor.name), ("kind", descriptor.kind)):
        if described.get(field) != expected:
            raise Internal(
                f"{path}: describe: {field}: {descriptor.source} says {expected!r}, got {short(described.get(field))}"
            )
    for field in ("inputs", "outputs"):
        _check_ops(described.get(field), f"{path}: describe: {field}")
    words = described.get("capabilities")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Internal(f"{path}: describe: capabilities: expected a list of text, got {short(words)}")
    if len(words) > WORDS_MAX:
        raise Internal(f"{path}: describe: capabilities: expected at most {WORDS_MAX}, got {len(words)}")
    declared = reach(descriptor.capabilities + descriptor.spellings)
    for word in words:
        _check_claim(word, descriptor, declared, path)
    return described


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
